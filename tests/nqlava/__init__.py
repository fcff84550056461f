"""Tests of the ground that all stages stand on, mirroring nqlava/."""
