"""Arms x tasks x seeds: what is planned, run, searched and read from files."""
