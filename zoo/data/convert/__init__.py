"""Import of tables and folders of images, and export back to them."""
