"""Weights of four bits in the place of a checkpoint's own: after the noise, which codes of four bits cannot take.

The codes are bitsandbytes' NF4 with scales that are quantised too, as QLoRA has them: Dettmers et al. 2023.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from noisytune._files import parse_object, publish
from noisytune._pretrained import CONFIG, weight_files, weights_entry
from noisytune.checkpoint._source import Source
from noisytune.errors import ConfigError, DataError, require
from noisytune.manifest import FILE_NAME

Codes = Literal["nf4"]
QUANTISED = "quantised"
"""In noisytune.json: the codes in which the weights were written after the noise."""
_PART = "quantised.tmp"


def refuse_four_bits(source: Source, codes: str) -> None:
    """See that weights can be quantised here, before the long part.

    Args:
        source: the clean checkpoint.
        codes: what is asked for.

    Raises:
        MissingExtraError: a library of the extra ``quantize`` is not installed.
        ConfigError: there are no such codes, or bitsandbytes cannot compute on this machine.
        DataError: the configuration names no class of transformers.
    """
    if codes not in get_args(Codes):
        raise ConfigError(f"quantize must be one of {', '.join(get_args(Codes))}, got {codes!r}")
    refuse_bitsandbytes()
    _class_of(source.folder, source.config or {})


def refuse_bitsandbytes() -> None:
    """See that bitsandbytes is here, and computes on this machine.

    Raises:
        MissingExtraError: a library of the extra ``quantize`` is not installed.
        ConfigError: it cannot.
    """
    for library in ("bitsandbytes", "torch", "transformers", "accelerate"):
        require(library, extra="quantize", needed_for="quantize")
    import bitsandbytes
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    here = {"cpu"} | ({accelerator.type} if accelerator else set())
    able = set(getattr(bitsandbytes, "supported_torch_devices", {"cuda"}))
    if not here & able:
        raise ConfigError(
            f"quantize: bitsandbytes {bitsandbytes.__version__} computes on {', '.join(sorted(able))}, and this "
            f"machine has {', '.join(sorted(here))}: install a newer one (0.50 computes on CPUs), or take a GPU"
        )


def quantise_(folder: Path, codes: Codes) -> None:
    """Quantise the weights of a checkpoint that noise was written into, in place. All of the model is in memory.

    Linear layers get codes; embeddings, norms and the output layer stay as they are. The dtype of the files stays that
    of what is computed.

    Args:
        folder: a whole checkpoint that nobody uses yet: it is not whole in between.
        codes: their name.

    Raises:
        DataError: transformers or bitsandbytes cannot quantise such a model.
    """
    config = parse_object(folder / CONFIG, (folder / CONFIG).read_bytes())
    part = folder / _PART
    with _quiet():
        try:
            _loaded(_class_of(folder, config), folder, codes).save_pretrained(str(part))
        except (ValueError, RuntimeError, NotImplementedError, KeyError) as error:
            raise DataError(
                f"{folder}: its weights cannot be quantised: {(str(error) or repr(error)).splitlines()[0]}"
            ) from error
    entry = weights_entry(folder)
    before = weight_files(folder)
    permissions = before[0].stat().st_mode & 0o777
    for old in {*before, *([entry] if entry else [])}:
        old.unlink()
    for new in weight_files(part):
        new.chmod(permissions)
        _moved(new, folder)
    if (index := weights_entry(part)) is not None:
        _moved(index, folder)
    written = json.loads((part / CONFIG).read_bytes())
    # What transformers would write besides is left alone: the file stays the source's, the receipt in it.
    config["quantization_config"] = written["quantization_config"]
    publish(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
    shutil.rmtree(part)
    record = json.loads((folder / FILE_NAME).read_bytes())
    publish(folder / FILE_NAME, json.dumps(record | {QUANTISED: codes}, indent=1).encode())


def _class_of(folder: Path, config: dict[str, Any]) -> Any:
    import transformers

    named = config.get("architectures") or []
    found = getattr(transformers, str(named[0]), None) if named else None
    if found is None:
        what = f"names {named[0]!r}, which transformers does not have" if named else "names no architecture"
        raise DataError(f"{folder / CONFIG}: {what}: quantise where the model is loaded")
    return found


def _loaded(model_class: Any, folder: Path, codes: Codes) -> Any:
    import torch
    import transformers

    settings: Any = transformers.BitsAndBytesConfig
    how = settings(
        load_in_4bit=True,
        bnb_4bit_quant_type=codes,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return model_class.from_pretrained(str(folder), quantization_config=how, dtype="auto", trust_remote_code=False)


def _moved(file: Path, folder: Path) -> None:
    """Move a file, made durable."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(file, folder / file.name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bars."""
    import transformers

    logging: Any = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
