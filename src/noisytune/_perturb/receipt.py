"""What perturbed weights say about their noise: the receipt, on a module and as ``noisytune`` in config.json.

A receipt is the settings as JSON, with the receipt of noise that was there before under ``earlier``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noisytune.config import NoisyTuneConfig

KEY = "noisytune"
"""The receipt's name in a Hugging Face configuration and in checkpoints."""


def receipt_of(config: NoisyTuneConfig, earlier: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The receipt of noise.

    Args:
        config: the settings of the noise.
        earlier: the receipt of noise that the weights carried before.

    >>> receipt_of(NoisyTuneConfig(seed=3))["seed"]
    3
    """
    return config.to_dict() | ({"earlier": dict(earlier)} if earlier else {})


def receipt_in(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The receipt in a Hugging Face configuration, or the first in those of the models inside it.

    >>> receipt_in({"model_type": "clip", "text_config": {"model_type": "clip_text_model", "noisytune": {"seed": 3}}})
    {'seed': 3}
    """
    inside = (found for value in config.values() if _is_config(value) and (found := receipt_in(value)))
    receipt = config.get(KEY)
    return receipt if isinstance(receipt, dict) else next(inside, None)


def with_receipt(config: Mapping[str, Any], receipt: Mapping[str, Any] | None) -> dict[str, Any]:
    """A Hugging Face configuration with a receipt, and so those of the models inside it, which may be taken out.

    Args:
        config: with any receipt, or none.
        receipt: None for clean weights.

    >>> with_receipt({"encoder": {"model_type": "bert"}, "noisytune": {"seed": 2}}, {"seed": 3})
    {'encoder': {'model_type': 'bert', 'noisytune': {'seed': 3}}, 'noisytune': {'seed': 3}}
    """
    content = {k: with_receipt(v, receipt) if _is_config(v) else v for k, v in config.items() if k != KEY}
    return content | ({KEY: dict(receipt)} if receipt else {})


def _is_config(value: Any) -> bool:
    return isinstance(value, dict) and "model_type" in value


def settings_in(receipt: Mapping[str, Any] | None) -> NoisyTuneConfig | None:
    """The settings that a receipt holds; None for no receipt.

    Raises:
        ConfigError: the receipt holds a setting that does not exist, or has another value than one can have.
    """
    if not receipt:
        return None
    return NoisyTuneConfig.from_dict({key: value for key, value in receipt.items() if key != "earlier"})


def describe(config: NoisyTuneConfig | None) -> str:
    """The noise in a few words.

    >>> describe(NoisyTuneConfig(seed=3)), describe(None)
    ('noise of lambda 0.15, seed 3', 'no noise')
    """
    return f"noise of lambda {config.noise_lambda:g}, seed {config.seed}" if config else "no noise"


def carries(receipt: Mapping[str, Any]) -> str:
    """The sentence that refuses noise on noise. Takes receipts as strangers may have written them.

    >>> carries(receipt_of(NoisyTuneConfig(seed=3)))
    'the weights carry noise already (lambda 0.15, seed 3)'
    """
    what = {"lambda": receipt.get("noise_lambda"), "seed": receipt.get("seed")}
    about = ", ".join(f"{word} {value}" for word, value in what.items() if value is not None)
    return f"the weights carry noise already{f' ({about})' if about else ''}"


def none_added(config: NoisyTuneConfig) -> str:
    """The line in the log of a host that leaves noise alone.

    >>> none_added(NoisyTuneConfig(seed=3))
    'NoisyTune: the weights carry noise of lambda 0.15, seed 3 already: none was added'
    """
    return f"NoisyTune: the weights carry {describe(config)} already: none was added"
