"""Scoring: what a model, and its frozen reference, say of a batch.

``forward.score`` runs a model once and returns ``scores.Scores`` with what was asked for and
nothing else; ``reference`` returns the same of the model before unlearning.
"""
