"""Tests of the export, mirroring export/."""
