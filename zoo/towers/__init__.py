"""Encoders of pictures and of texts: each owns how raw input becomes what it reads."""
