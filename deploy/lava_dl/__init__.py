"""lava-dl's own networks: reader and exact engine."""
