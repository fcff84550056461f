"""The training loop: recipe, checkpoints, calibration, processes."""
