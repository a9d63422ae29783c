"""Metrics: pure functions, and torchmetrics classes over them."""
