"""Speed of captioning, measured against the original implementations, and on a GPU."""
