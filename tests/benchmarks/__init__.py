"""Tests of the benchmarks: what they compare is right, and they run."""
