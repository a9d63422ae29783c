"""Files and arrays. Nothing here knows a model."""
