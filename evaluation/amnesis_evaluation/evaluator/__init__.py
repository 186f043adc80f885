"""The evaluator: metrics are selected for sets, read from answers, and given intervals.

``evaluate`` is the way through; ``selection`` says which metric is read from which set,
``bootstrap`` how certain a value is, ``cache`` what was evaluated before.
"""
