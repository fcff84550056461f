"""Tests of NIR graphs, mirroring export/nir/."""
