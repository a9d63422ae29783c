"""How the catalogue's items are drawn."""
