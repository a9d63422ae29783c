"""Files into batches. Data knows no model."""
