"""Tests of the network as C, mirroring nqlava/c/."""
