"""lm-evaluation-harness: its tasks on models in memory and on local data."""
