"""Models: loaded or made new, where they compute, which of their parameters train, what they are.

A model comes from ``loading`` or ``creation``, gets its ``trainable`` parameters, and is known to
caches by its ``fingerprint``.
"""

from __future__ import annotations
