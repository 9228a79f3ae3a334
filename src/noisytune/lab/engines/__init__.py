"""Where jobs run."""

from noisytune.lab.engines.inline import InlineEngine
from noisytune.lab.engines.local import LocalEngine
from noisytune.lab.engines.protocol import Cause, Engine, Job, JobFailed
from noisytune.lab.engines.ray import RayEngine

__all__ = ["Cause", "Engine", "InlineEngine", "Job", "JobFailed", "LocalEngine", "RayEngine"]
