"""What turns a run into numbers and files."""
