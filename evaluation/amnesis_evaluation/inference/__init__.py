"""Inference: what a model says of every text that somebody asked about, in few passes.

``answers`` encodes sets and collects; ``teacher_forcing``, ``generation`` and ``gradient_norm``
make the passes that were asked for, in the batches that ``batching`` lays out.
"""
