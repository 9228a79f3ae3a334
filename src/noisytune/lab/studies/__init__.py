"""Arms x tasks x seeds: what is planned, run, searched and read from files."""

USUAL_SEEDS = 8
"""Pairs where nobody says how many. Fewer than seven can never show a difference, whatever they are."""
