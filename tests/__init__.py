"""Tests. This file makes `tests` ours: Lava installs a top-level package of the same name."""
