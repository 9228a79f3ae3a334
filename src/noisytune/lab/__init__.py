"""Paired, multi-seed evidence: a study is arms x tasks x seeds, a trial is one of them, a record is what it gave."""
