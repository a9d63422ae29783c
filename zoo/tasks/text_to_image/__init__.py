"""Text to image: a Chinese prompt in, an image out."""
