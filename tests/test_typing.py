"""What a type checker says to users: a misspelt or impossible setting is caught in the editor."""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path

import pytest

from noisytune.config import NoiseSettings, NoisyTuneConfig

ENTRANCES = (
    "noisytune.arrays:perturb_arrays",
    "noisytune.arrays:perturb_arrays_",
    "noisytune.checkpoint:inspect_checkpoint",
    "noisytune.checkpoint:perturb_checkpoint",
    "noisytune.integrations.keras:NoisyTuneCallback",
    "noisytune.integrations.keras:perturb_",
    "noisytune.integrations.lightning:NoisyTuneCallback",
    "noisytune.integrations.transformers:attach",
    "noisytune.jax:perturb",
    "noisytune.torch:perturb_",
    "noisytune.torch:perturb_state_dict",
)
"""All that take the settings of the noise by name."""

MISTAKES = {
    "noise_lamda=0.1": 'Unexpected keyword argument "noise_lamda"',
    'seed="one"': 'Argument "seed" .* has incompatible type "str"; expected "int"',
    'scale="tensor"': "Argument \"scale\" .* expected \"Literal\\['matrix', 'global'\\]\"",
}


def test_the_typed_settings_are_those_of_the_config():
    fields = [field.name for field in dataclasses.fields(NoisyTuneConfig)]
    assert list(NoiseSettings.__annotations__) == fields
    assert NoiseSettings.__required_keys__ == frozenset()


@pytest.mark.parametrize("entrance", [e for e in ENTRANCES if "keras" not in e])
def test_every_entrance_has_them(entrance):
    module, _, name = entrance.partition(":")
    found = inspect.signature(getattr(importlib.import_module(module), name))
    assert found.parameters["settings"].annotation == "Unpack[NoiseSettings]"


@pytest.mark.slow
def test_mypy_sees_what_is_misspelt(tmp_path):
    """Every entrance, called right and with each mistake; Keras needs no import to be checked."""
    from mypy import api

    lines = [f"import {module}" for module in sorted({entrance.partition(":")[0] for entrance in ENTRANCES})]
    lines += ["from typing import Any", "it: Any = None"]
    right = 'noise_lambda=0.1, seed=3, scale="global", exclude="*bias", include=["*"]'
    arguments = {"NoisyTuneCallback": "", "perturb_checkpoint": "it, it, "}
    wrong = {}
    for entrance in ENTRANCES:
        module, _, name = entrance.partition(":")
        first = arguments.get(name, "it, ")
        lines.append(f"{module}.{name}({first}{right})")
        for mistake in MISTAKES:
            lines.append(f"{module}.{name}({first}{mistake})")
            wrong[len(lines)] = mistake
    lines.append("noisytune.config.NoisyTuneConfig().replace(noise_lamda=1)")
    wrong[len(lines)] = "noise_lamda=0.1"
    snippet = tmp_path / "snippet.py"
    snippet.write_text("\n".join(lines) + "\n")
    settings = Path(__file__).parents[1] / "pyproject.toml"
    output, errors, _ = api.run(["--config-file", str(settings), "--no-error-summary", str(snippet)])
    assert not errors
    said = [line.split(": error: ") for line in output.splitlines() if ": error: " in line]
    assert {int(where.rpartition(":")[2]) for where, _ in said} == set(wrong), output
    for where, message in said:
        assert re.search(MISTAKES[wrong[int(where.rpartition(":")[2])]], message)
