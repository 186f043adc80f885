"""Scoring: what a model, and its frozen reference, say of a batch.

``forward.score`` runs a model once over a ``Batch`` and returns ``scores.Scores`` that hold what a
``Needs`` declares and nothing else. ``reference`` provides the same scores of the model before
unlearning. ``head``, ``chunked_logps`` and ``chunked_sums`` keep logits out of memory: where only
log-probabilities are needed, and where every loss of logits looks at each place by itself
(``rows``). ``logits`` keeps those of a frozen model as hidden states and a head.

Semi-public: plugins that measure gradients of their own may use it.
"""
