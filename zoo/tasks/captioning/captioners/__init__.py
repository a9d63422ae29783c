"""The networks that write a caption."""
