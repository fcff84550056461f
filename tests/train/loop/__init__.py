"""Tests of the training loop, mirroring train/loop/."""
