"""NoisyTune on a PyTorch module, in place: ``noisytune.torch.perturb_(model, noise_lambda=0.15, seed=1)``.

Call it on the pretrained weights, before anything else holds a copy of them: before the optimizer, EMA or reference
copies, ``prepare()``, ``deepspeed.initialize``, ``DistributedDataParallel`` and ``get_peft_model``; before or after
``fully_shard``, ``deepspeed.zero.Init`` and tensor parallelism. Every rank of a distributed job that calls it gets the
same noise.
"""

from __future__ import annotations

from noisytune.errors import MissingExtraError

try:
    import torch as _  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtraError("noisytune.torch needs PyTorch: run  pip install 'noisytune[torch]'") from error

from noisytune.torch._perturb import perturb_
from noisytune.torch._receipt import mark, receipt
from noisytune.torch._state_dict import perturb_state_dict

__all__ = ["mark", "perturb_", "perturb_state_dict", "receipt"]
