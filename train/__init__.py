"""Training: NQ activation, networks, data, noise calibration, float SNN reference and the CIFAR trainer."""
