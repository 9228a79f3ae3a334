"""Where jobs run."""

from noisytune.lab.engines.local import Engine, Job, LocalEngine, worker_environment

__all__ = ["Engine", "Job", "LocalEngine", "worker_environment"]
