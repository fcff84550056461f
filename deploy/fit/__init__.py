"""Whether an integer network fits a chip, how active it is, and what that costs: docs/fit.md."""
