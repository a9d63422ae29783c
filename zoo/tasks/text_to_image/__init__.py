"""Text to image: a Chinese description in, an image out."""
