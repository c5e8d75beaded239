"""The infrastructure of the stages: locks, files, checkpoints, tracking, progress, devices. Computes no results."""
