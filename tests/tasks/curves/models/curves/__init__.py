"""Curves y(x): their supernet, found network and training."""
