"""Tests of lowering, mirroring export/fold/."""
