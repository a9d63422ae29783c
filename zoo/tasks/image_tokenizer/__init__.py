"""The image tokenizer: an image in, a grid of codes out, and back."""
