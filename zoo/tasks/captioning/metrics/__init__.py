"""The scores of captions."""
