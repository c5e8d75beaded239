"""The task of images: data, settings, training, export, scores and views."""
