"""Models: where they come from, where they compute, and which of their parameters train.

A model comes from ``loading`` (with weights in 8 or 4 bits by ``quantization``) or ``creation``, on
one of the ``devices``; ``trainable`` chooses its parameters or adds an adapter. Caches identify it
by its ``fingerprint``.
"""

from __future__ import annotations
