"""The exact integer engine: fast, and judged by nqlava.reference."""
