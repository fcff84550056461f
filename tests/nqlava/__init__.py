"""Tests of the ground, mirroring nqlava/."""
