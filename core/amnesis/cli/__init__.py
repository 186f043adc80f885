"""The command line: ``amnesis`` and its core commands.

``app`` parses, a command's own file works, ``errors`` puts what goes wrong into one line.
"""
