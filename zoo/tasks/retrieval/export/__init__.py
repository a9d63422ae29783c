"""Formats that retrieval models leave in."""
