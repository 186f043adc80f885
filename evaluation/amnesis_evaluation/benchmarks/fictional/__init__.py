"""The `fictional` benchmark: invented authors to forget, and facts to keep."""
