"""Reports: stored evaluations, comparisons of runs, tables, and original TOFU logs."""
