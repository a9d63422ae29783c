"""Speed and memory of retrieval, measured against the original implementations."""
