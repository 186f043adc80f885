"""Inference: everything that metrics read of a model, computed in as few passes as possible.

``answers`` encodes the sets and collects the results; ``teacher_forcing``, ``generation`` and
``gradient_norm`` make those passes that a metric needs, in the batches that ``batching`` forms.
"""
