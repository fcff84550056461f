"""Engine, Lava and reference on the same images: running, comparing, judging."""
