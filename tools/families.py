"""Writes the table of model types that noisytune knows: ``make families``, or ``make families TYPES="bert llama"``.

Every type that transformers registers, built from a tiny configuration on the meta device. What cannot be built stays
out of the table; it is said on standard error.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from sweep.configs import model_types, tiny_config
from sweep.models import classes
from transformers import PreTrainedConfig

from noisytune._perturb.families import Family, generated
from noisytune.torch._family import family_of

TABLE = Path(__file__).parents[1] / "src" / "noisytune" / "_perturb" / "families.json"
PAD = "pad_token_id"


def facts_of(model_type: str) -> dict[str, Any]:
    """The facts about a type, without those that are empty.

    Raises:
        Exception: whatever transformers raises on a configuration that does not fit.
    """
    config = tiny_config(model_type)
    found = sorted(classes(model_type, config)[1:], key=lambda each: each.__name__.endswith("ForCausalLM"))
    makers = [classes(model_type, config)[0], *found]
    table = cast(dict[str, Family], generated())
    before = table.pop(model_type, None)  # what it said before has no say
    try:
        if _holds_its_prefix(makers[0], config):
            table[model_type] = Family(())  # the base model itself
        untied = _models(makers, config, tie=False)
        try:
            tied = _models(makers, config, tie=True)
        except Exception as error:  # a configuration whose type knows no ties
            print(f"{model_type}: {error}"[:200], file=sys.stderr)
            tied = untied
        facts = asdict(family_of(tied, untied))
    finally:
        table.pop(model_type, None)
        table |= {model_type: before} if before else {}
    return {name: value for name, value in facts.items() if value not in ((), {}, None)}


def _holds_its_prefix(base: Any, config: PreTrainedConfig) -> bool:
    """Whether a base model has a part where models with a head have the base model: then no prefix says anything."""
    with torch.device("meta"):
        model = base._from_config(config)
    return model.base_model is not model


def _models(makers: list[Any], config: PreTrainedConfig, tie: bool) -> list[Any]:
    """The models of each class that can be built, with padding tokens that no class has written into its code."""
    built = []
    for maker in makers:
        settings = config.to_dict()
        _set(settings, "tie_word_embeddings", [tie] * 9)
        _set(settings, PAD, list(range(5, 14)))
        try:
            with torch.device("meta"):
                built.append(maker._from_config(type(config).from_dict(settings)))
        except Exception as error:  # the base has to be there, a head need not
            if maker is makers[0]:
                raise
            print(f"{config.model_type}: {maker.__name__}: {error}"[:200], file=sys.stderr)
    return built


def _set(settings: dict[str, Any], name: str, values: list[Any]) -> None:
    """Set a setting of a configuration, and of those inside it: another value each."""
    if name in settings:
        settings[name] = values.pop(0)
    for inside in settings.values():
        if isinstance(inside, dict) and "model_type" in inside and values:
            _set(inside, name, values)


def main(chosen: list[str]) -> None:
    """Write the table, or the lines of some types in it."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    table: dict[str, Mapping[str, Any]] = json.loads(TABLE.read_text())["families"] if chosen and TABLE.exists() else {}
    for model_type in chosen or model_types():
        try:
            table[model_type] = facts_of(model_type)
        except Exception as error:  # said, and left out
            print(f"{model_type}: {type(error).__name__}: {error}"[:300], file=sys.stderr)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(table[name])}" for name in sorted(table))
    TABLE.write_text(f'{{"transformers": "{transformers.__version__}", "families": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    main(sys.argv[1:])
