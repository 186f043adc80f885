"""Evaluation of language models after unlearning: metrics, benchmarks, attacks and reports."""
