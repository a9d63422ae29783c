"""The networks that draw an image from a text."""
