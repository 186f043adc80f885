"""``amnesis init``: look at one's own files, and write a recipe for them."""
