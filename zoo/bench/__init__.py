"""Speed and memory, measured against the original implementations."""
