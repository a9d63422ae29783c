"""The scores of generated images."""
