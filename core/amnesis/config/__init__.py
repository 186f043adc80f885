"""What a person writes, as records: their frozen base, and what is wrong with them in words."""

from __future__ import annotations
