"""Curves as a task."""
