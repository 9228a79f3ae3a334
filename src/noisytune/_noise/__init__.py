"""Noise and standard deviations of plain arrays: the plain references' compiled twins. Knows numbers, not names."""
