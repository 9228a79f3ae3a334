"""The head of a model that was fine-tuned before: left out for a new one, or kept with its classes in the task's order.

A head is what stands outside the pretrained body. Loads torch only where a model is at hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from noisytune._pretrained import configuration, weight_files
from noisytune.errors import ConfigError, DataError

NEW = "new"
"""In a trial's settings: the checkpoint has a head, and the trial does not use it."""

_TRAINED = ("ForSequenceClassification", "ForTokenClassification")
_OUTPUTS = re.compile(r"(.*\.)?(classifier|score|logits_proj|classification_head)(\.\w+)*\.weight")


@lru_cache(maxsize=64)
def is_fine_tuned(model_dir: Path) -> bool:
    """Whether a checkpoint comes from a classifier, so that its head would be loaded. Reads no weights.

    Its ``config.json`` says so, or the names of its tensors do.
    """
    config = configuration(model_dir)
    architectures = config.get("architectures") or []
    if any(str(name).endswith(_TRAINED) for name in architectures):
        return True
    if not config or architectures:
        return False
    try:
        return any(_OUTPUTS.fullmatch(name) for name in _tensor_names(model_dir))
    except (OSError, ValueError, DataError):
        return False  # loading the model says what is wrong


def about_head(name: str, model_dir: Path, keep: bool) -> tuple[str, ...]:
    """What to tell the user of a model's head.

    Args:
        name: of the model.
        model_dir: where the weights are.
        keep: the setting ``keep_head``.
    """
    if not is_fine_tuned(model_dir):
        return ()
    if keep:
        return (f"model {name}: the head of its earlier fine-tuning is kept, its classes are mapped by name",)
    return (
        f"model {name}: was fine-tuned before; the head of the checkpoint is left out, and each trial's seed sets a "
        "new one (keep_head keeps it)",
    )


def without_head(model: Any, loaded: dict[str, Any], seed: int) -> Any:
    """The model with a new head, as if the checkpoint had none; the same model where it has none.

    Parts that merely stand between the body and the outputs stay, unless the outputs themselves were trained.

    Args:
        model: as transformers has loaded it.
        loaded: what it said of it: ``missing_keys`` and ``mismatched_keys``.
        seed: of the new head.
    """
    from transformers import set_seed

    fresh = set(loaded["missing_keys"])
    body = f"{model.base_model_prefix}."
    head = [name for name, _ in model.named_parameters() if not name.startswith(body)]
    trained = any(name not in fresh for name in _outputs(model, head))
    resized = {entry[0] if isinstance(entry, tuple) else entry for entry in loaded["mismatched_keys"]}
    if model.base_model is model or not trained or set(head) <= fresh | resized:
        return model
    state = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(body)}
    set_seed(seed)
    return type(model).from_pretrained(None, config=model.config, state_dict=state, dtype=model.dtype)


def keep_head_(model: Any, loaded: dict[str, Any], model_dir: Path, labels: Sequence[str]) -> None:
    """Bring the outputs of a head that was trained before into the order of the task's classes.

    Args:
        model: as transformers has loaded it.
        loaded: what it said of it.
        model_dir: says what the outputs were.
        labels: the task's classes in id order.

    Raises:
        ConfigError: there is no trained head, or its classes are others.
    """
    import torch

    if not labels:
        raise ConfigError(
            "keep_head: outputs are kept for classes, by their names, and this task has none: leave it out"
        )
    config = json.loads((model_dir / "config.json").read_bytes())
    named = {int(i): str(label) for i, label in (config.get("id2label") or {}).items()}
    known = [named[i] for i in sorted(named)]
    if sorted(known) != sorted(labels):
        raise ConfigError(
            f"keep_head: the checkpoint's classes are {', '.join(known) or 'not named'}, the task's "
            f"{', '.join(labels)}: they must have the same names; leave keep_head out for a new head"
        )
    body = f"{model.base_model_prefix}."
    head = [name for name, _ in model.named_parameters() if not name.startswith(body)]
    outputs = _outputs(model, head)
    if not outputs or set(outputs) & set(loaded["missing_keys"]):
        raise ConfigError("keep_head: the checkpoint has no head; leave keep_head out for a new one")
    order = torch.tensor([known.index(label) for label in labels])
    with torch.no_grad():
        for name in outputs:
            parameter = model.get_parameter(name)
            parameter.copy_(parameter[order])


def _outputs(model: Any, head: Sequence[str]) -> list[str]:
    """Weight and bias of the last layer that has one output a class."""
    fitting = [name for name in head if len(model.get_parameter(name)) == model.config.num_labels]
    layer = fitting[-1].rpartition(".")[0] if fitting else ""
    return [name for name in fitting if name.rpartition(".")[0] == layer]


def _tensor_names(model_dir: Path) -> list[str]:
    """Of safetensors; none of other files, which would have to be unpickled."""
    from safetensors import SafetensorError, safe_open

    names: list[str] = []
    for file in weight_files(model_dir):
        if file.suffix == ".safetensors":
            try:
                with safe_open(str(file), framework="numpy") as opened:
                    names += opened.keys()
            except SafetensorError as error:
                raise DataError(f"{file}: damaged ({error})") from error
    return names
