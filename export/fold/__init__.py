"""Lowering of a traced module to layers of float weights."""
