"""Rounding of float weights to integers."""
