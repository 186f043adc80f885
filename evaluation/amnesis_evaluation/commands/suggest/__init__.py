"""``amnesis suggest``: the command, and the short trials that it ranks."""
