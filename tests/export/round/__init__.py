"""Tests of rounding, mirroring export/round/."""
