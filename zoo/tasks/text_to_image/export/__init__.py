"""Formats of other libraries that generators leave in."""
