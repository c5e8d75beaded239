"""How long a discrete architecture takes on a device: codes, predictors, and the penalty that keeps a budget."""
