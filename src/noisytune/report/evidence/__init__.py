"""Records in, comparisons out: pairs, rows, verdicts."""
