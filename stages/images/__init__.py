"""Images as a task: their data, settings, scores and drawings."""
