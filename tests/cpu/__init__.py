"""Tests of deploy/cpu."""
