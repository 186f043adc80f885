"""``amnesis evaluate``: the command, what it is asked for, the evaluation, what is shown."""
