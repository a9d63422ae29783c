"""Captioning: an image in, Chinese copy out."""
