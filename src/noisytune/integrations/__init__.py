"""NoisyTune inside the trainers of other libraries: only what must subclass, or register with, a host."""
