"""``amnesis compare``: the command, what it shows in a terminal, its record and its page."""
