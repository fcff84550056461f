"""Tests of the comparison, mirroring deploy/compare/."""
