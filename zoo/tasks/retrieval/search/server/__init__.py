"""The server of a product search: its routes, its limits, and the page over them."""
