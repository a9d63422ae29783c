"""Losses of retrieval as modules that own what they learn; each file registers one."""
