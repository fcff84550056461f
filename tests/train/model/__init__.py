"""Tests of the networks, mirroring train/model/."""
