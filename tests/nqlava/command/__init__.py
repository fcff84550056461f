"""Tests of what commands share, mirroring nqlava/command/."""
