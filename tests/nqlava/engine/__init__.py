"""Tests of the engine, mirroring nqlava/engine/."""
