"""Tests of conversion without training, mirroring export/calibrate/."""
