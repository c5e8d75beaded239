"""Images: their networks, augmentation and training."""
