"""What stages need around their work: locks, files, checkpoints, tracking, progress, devices. Computes no result."""
