"""``amnesis probe``: the command, its page and its picture."""
