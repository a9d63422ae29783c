"""Callbacks for the training of any task."""
