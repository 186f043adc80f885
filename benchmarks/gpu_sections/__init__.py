"""What ``benchmarks/gpu.py`` measures: each section takes the bench and yields findings.

``bench`` has the shapes, the device and what a finding is; ``correctness``, ``steps``, ``memory``
and ``generation`` are the sections.
"""
