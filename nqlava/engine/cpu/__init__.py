"""Exact integer arithmetic of layers on a CPU: int8 convolutions, and compiled integrate-and-fire."""
