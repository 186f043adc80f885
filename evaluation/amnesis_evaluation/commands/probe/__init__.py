"""``amnesis probe``: the command, its HTML page and its heat maps."""
