"""Configuration: what a person writes, in YAML or Python, as validated frozen records.

A document goes through ``validation``, which makes a record derived from ``settings.Settings`` of
it, or says in plain words which keys are wrong. ``problems`` collects errors of several checks, so
that all of them are reported at once.
"""

from __future__ import annotations
