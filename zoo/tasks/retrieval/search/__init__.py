"""Product search: embeddings of a catalogue, an index of them, queries, a server with a page."""
