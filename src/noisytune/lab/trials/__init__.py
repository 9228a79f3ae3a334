"""One arm, one task, one seed: how a trial is described, and how it is run."""
