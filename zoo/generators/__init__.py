"""Text-to-image generators: what a registered builder makes keeps the contract ``zoo.interfaces.Generator``."""
