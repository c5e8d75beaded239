"""How long networks take on a device: measuring, tables from other devices, the kit, and what predicts latency."""
