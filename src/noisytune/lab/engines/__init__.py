"""Where jobs run."""

from noisytune.lab.engines.inline import InlineEngine
from noisytune.lab.engines.local import LocalEngine, worker_environment
from noisytune.lab.engines.protocol import Engine, Job

__all__ = ["Engine", "InlineEngine", "Job", "LocalEngine", "worker_environment"]
