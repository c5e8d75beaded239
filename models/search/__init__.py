"""The family of searches: the mean shift and its relatives. Knows no domain."""
