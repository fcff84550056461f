"""Long campaigns: random networks, damaged files, faults while running, hours of work; ``python -m campaign``."""
