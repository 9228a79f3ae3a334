"""What transformers' code says about a checkpoint whose model type no table knows: its models, without weights."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from noisytune._perturb.families import Family

_COUNTS = re.compile(
    r"(n_?layers?|layers|depths?|num_blocks|group_num|hidden_groups|num_experts|num_local_experts|n_routed_experts)$"
)
"""Keys of a configuration that say how many parts are built."""
_LABELS = ("label2id", "id2label")
_FEW = 1000
"""So many parts are built in no time."""


def family_in_code(folder: Path, config: Mapping[str, Any], tensors: int) -> Family | None:
    """The facts about a model type; None where nobody can say. Nothing that a stranger wrote is run.

    Args:
        folder: of the checkpoint.
        config: of config.json.
        tensors: how many the files hold.
    """
    built = [model for model in (model_in_code(folder, config, tensors, base) for base in (True, False)) if model]
    if not built:
        return None
    from noisytune.torch._family import family_of

    try:
        return family_of(built)
    except Exception:  # whatever the code of a model raises: the type then counts as unknown, which is told
        return None


def may_be_built(config: Mapping[str, Any], layers: int) -> bool:
    """Whether the model that a stranger's configuration describes can be built: it ends, and runs nothing of theirs.

    Args:
        config: of config.json, with those of the models inside it.
        layers: at most so many, or a few; where there are more, it is not what the files hold, and perhaps endless to
            build.

    >>> may_be_built({"model_type": "bert", "num_hidden_layers": 12}, 1000)
    True
    >>> may_be_built({"model_type": "emu3", "text_config": {"num_hidden_layers": 10**8}}, 1000)
    False
    """
    left: list[Any] = [config]
    while left:
        value = left.pop()
        if isinstance(value, list):
            left += value
        elif isinstance(value, dict):
            if str(value.get("model_type")).startswith("timm") or "model_args" in value:
                return False  # timm reads weights from the file that a configuration names, pickles among them
            counts = [each for key, each in value.items() if _COUNTS.search(str(key))]
            counts += [each for found in counts if isinstance(found, list) for each in found]
            if any(isinstance(each, int) and each > max(layers, _FEW) for each in counts):
                return False
            left += (each for key, each in value.items() if key not in _LABELS)
    return True


def model_in_code(folder: Path, config: Mapping[str, Any], tensors: int, base: bool = False) -> Any:
    """The model that the files are of, on the meta device, or the base model of its type; None where nobody can say."""
    if not config.get("model_type") or find_spec("transformers") is None or find_spec("torch") is None:
        return None
    if not may_be_built(config, tensors):
        return None
    import torch
    import transformers
    from transformers.utils import logging

    auto: Any = transformers.AutoModel
    verbosity = logging.get_verbosity()
    logging.set_verbosity(50)  # critical: nothing
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            known = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            architecture = "" if base else next(iter(known.architectures or ()), "")
            model_class = getattr(transformers, architecture, None)
            return model_class(known) if model_class else auto.from_config(known, trust_remote_code=False)
    except Exception:  # a stranger's configuration can fail in any way; the bytes are then asked instead
        return None
    finally:
        logging.set_verbosity(verbosity)
