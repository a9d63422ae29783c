"""Text-to-image retrieval: a Chinese query in, product images out."""
