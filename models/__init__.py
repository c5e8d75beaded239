"""Networks and the search for them: pure PyTorch, no files, no tracker, no orchestrator."""
