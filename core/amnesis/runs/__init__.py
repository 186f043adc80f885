"""Runs: from a recipe to results.

A ``recipe`` is checked by ``preflight``, trained and evaluated by ``run`` (or ``finetune``), and
leaves ``results`` in its ``folder``.
"""
