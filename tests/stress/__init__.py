"""Tests of the stress runs: their mechanism, in a few seconds."""
