"""Tests of the long campaigns: their mechanism, at a tiny share."""
