"""What every command shares: options, start-up, signals, progress, files."""
