"""Deployment: the exact integer engine, Lava processes, and the command that runs and checks a netx file."""
