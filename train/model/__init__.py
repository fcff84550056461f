"""Networks that convert, their activations and neurons, and their simulation as SNNs."""
