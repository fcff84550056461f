"""Tests of reading and changing images, mirroring train/data/."""
