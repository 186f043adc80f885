"""``amnesis sweep``: one study of many runs, which processes and machines may share.

A sweep file becomes configurations (``space``), a study hands each to one process (``study``),
which runs it with every seed into ordinary run folders (``work``), and all are compared
(``summary``).
"""
