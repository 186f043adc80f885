"""lm-evaluation-harness: its tasks on a model in memory, with its own data or local files."""
