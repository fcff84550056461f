"""Tests of deploy/lava."""
