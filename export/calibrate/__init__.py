"""Conversion of ReLU networks without training: thresholds, initial potentials and weights from images."""
