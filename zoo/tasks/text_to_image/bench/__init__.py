"""Speed of text to image, measured against the original implementations."""
