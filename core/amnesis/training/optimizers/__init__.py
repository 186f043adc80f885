"""Optimizers: how weights take a step, and how weights of 16 bits keep what is smaller."""
