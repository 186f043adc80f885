"""Scoring: what a model, and its frozen reference, say of a batch.

``forward.score`` runs a model once over a ``Batch`` and returns ``scores.Scores`` that hold what a
``Needs`` declares and nothing else. ``reference`` provides the same scores of the model before
unlearning. ``head`` and ``chunked_logps`` keep logits out of memory where only log-probabilities
are needed.

Semi-public: plugins that measure gradients of their own may use it.
"""
