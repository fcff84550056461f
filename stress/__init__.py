"""Stress runs: random networks, damaged files, interrupted commands, hours of work; ``python -m stress KIND``."""
