"""Reports: evaluations on disk, runs side by side, tables, and the original TOFU logs."""
