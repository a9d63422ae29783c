"""Formats that captioners leave in."""
