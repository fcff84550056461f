"""A run as one page of HTML: the verdict, accuracy, images, spikes, ranges, fit, and how to reproduce it."""
