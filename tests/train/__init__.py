"""Tests of training, mirroring train/."""
