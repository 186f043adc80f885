"""The evaluator: selects metrics for sets, reads them from answers, and computes intervals.

``selection`` decides which metric is read from which set, ``evaluate`` obtains the answers and
reads the metrics, ``bootstrap`` computes the intervals, ``cache`` stores evaluations for later.
"""
