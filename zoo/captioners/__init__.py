"""Writers of captions: an image tower, what joins it to a language model, and that."""
