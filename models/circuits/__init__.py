"""Quantum circuits: their simulation in torch, the super-circuit, targets, the search and the tuning of angles."""
