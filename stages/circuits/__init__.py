"""Circuits as a task."""
