"""What the benches of all tasks share: the harness, the training loop against a bare one, made-up data."""
