"""Backbones that several tasks use: image towers, text towers, image autoencoders."""
