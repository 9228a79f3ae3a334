"""Numbers in, intervals and p-values out. Knows no study."""
