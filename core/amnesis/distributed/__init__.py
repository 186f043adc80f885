"""Several processes: sums over them, what only the first one does, and shards of tensors.

Everything above asks here how many processes there are; one process is the plain case.
"""
