"""The same noise in memory and on disk: one model type, each of its classes, every pairing that a user can come by."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from noisytune.checkpoint import perturb_checkpoint, verify_checkpoint
from noisytune.errors import NoisyTuneError
from noisytune.torch import perturb_
from sweep.configs import tiny_config
from sweep.inputs import forward
from sweep.models import build, classes
from sweep.training import train_two_steps

EQUAL, TOLD, SILENT, REFUSED, UNBUILT, BROKEN = (
    "equal",
    "differs with notice",
    "differs silently",
    "refused",
    "cannot be built",
    "fails",
)
WORST_FIRST = (SILENT, BROKEN, TOLD, REFUSED, UNBUILT, EQUAL)
NOISE = {"noise_lambda": 0.15, "seed": 1}


@dataclass(frozen=True)
class Finding:
    """What came of one pairing of one class."""

    model_class: str
    pairing: str
    result: str
    reason: str = ""

    def to_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def findings_of(model_type: str) -> Iterator[Finding]:
    """Everything that is tried on a model type."""
    try:
        config = tiny_config(model_type)
        found = classes(model_type, config)
    except Exception as error:  # the table names it
        yield Finding(model_type, "build", UNBUILT, _said(error))
        return
    base = found[0]
    for model_class in found:
        with tempfile.TemporaryDirectory() as folder:
            yield from _of_class(model_class, base, config, Path(folder))


def _of_class(model_class: Any, base: Any, config: Any, folder: Path) -> Iterator[Finding]:
    name = model_class.__name__
    own = folder / "own"
    try:
        model = build(model_class, config)
        model.save_pretrained(own)
        del model
        model_class.from_pretrained(own)
    except Exception as error:  # the table names it
        yield Finding(name, "build", UNBUILT, _said(error))
        return
    yield _tried(name, "float32, one file", lambda: compare(model_class, own, folder / "noisy"))
    for dtype, size in ((torch.bfloat16, "20KB"), (torch.float32, "20KB"), (torch.bfloat16, "1GB")):
        if model_class is base or (dtype is torch.bfloat16 and size == "20KB"):
            stored = folder / f"{dtype}{size}".removeprefix("torch.")
            model_class.from_pretrained(own).to(dtype).save_pretrained(stored, max_shard_size=size)
            pairing = f"{dtype}, {'shards' if size == '20KB' else 'one file'}".removeprefix("torch.")
            yield _tried(name, pairing, lambda: compare(model_class, stored, Path(f"{stored}-noisy")))  # noqa: B023
    yield _tried(name, "forward", lambda: _runs(model_class, folder / "noisy"))
    if model_class is not base:
        yield from _with_base(model_class, base, config, own, folder)
    if name.endswith("ForSequenceClassification"):
        yield _tried(name, "attach", lambda: train_two_steps(model_class, own, NOISE))


def _with_base(model_class: Any, base: Any, config: Any, own: Path, folder: Path) -> Iterator[Finding]:
    """The base model from the files of a model with a head, and a new head on the files of the base model."""
    name = model_class.__name__
    if type(model_class.from_pretrained(own).base_model) is not base:
        return
    if _lacks(base, own) == set():
        yield _tried(name, "base of its files", lambda: compare(base, own, folder / "base-noisy"))
        yield _tried(name, "with and without head", lambda: _same_base(model_class, base, own))
    plain = folder / "plain"
    build(base, config).save_pretrained(plain)
    prefix = model_class.base_model_prefix + "."
    if not any(lacking.startswith(prefix) for lacking in _lacks(model_class, plain)):
        yield _tried(name, "new head", lambda: compare(model_class, plain, folder / "plain-noisy"))


def _lacks(model_class: Any, folder: Path) -> set[str]:
    """Names of the weights that files do not hold for a class."""
    return set(model_class.from_pretrained(folder, output_loading_info=True)[1]["missing_keys"])


def _tried(name: str, pairing: str, work: Callable[[], tuple[str, str]]) -> Finding:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Finding(name, pairing, *work())
        except NoisyTuneError as error:
            return Finding(name, pairing, REFUSED, _said(error))
        except Exception as error:  # the table names it
            return Finding(name, pairing, BROKEN, _said(error))


def compare(model_class: Any, clean: Path, noisy: Path) -> tuple[str, str]:
    """Noise in memory and on disk, and what differs between the two."""
    memory = _loaded(model_class, clean)
    before = {name: tensor.clone() for name, tensor in _tensors(memory).items()}
    in_memory = perturb_(memory, **NOISE)
    on_disk = perturb_checkpoint(clean, noisy, **NOISE)
    if not (verified := verify_checkpoint(noisy, clean)).ok:
        return BROKEN, f"verify: {verified}"
    disk = _tensors(_loaded(model_class, noisy))
    after = _tensors(memory)
    differ = [name for name in after if not _same(after[name], disk[name])]
    if not differ:
        changed = sum(not _same(after[name], before[name]) for name in after)
        return (EQUAL, "") if changed else (BROKEN, "nothing took noise")
    told = [notice for notice in (*in_memory.notices, *on_disk.notices) if "differ" in notice]
    some = ", ".join(f"{name} {_who(name, before, after, disk)}" for name in differ[:3])
    what = f"{len(differ)} of {len(after)}: {some}"
    return (TOLD, f"{what}; {told[0]}") if told else (SILENT, what)


def _who(name: str, before: Mapping[str, Any], after: Mapping[str, Any], disk: Mapping[str, Any]) -> str:
    if _same(before[name], after[name]):
        return "(on disk only)"
    return "(in memory only)" if _same(before[name], disk[name]) else "(other noise)"


def _same_base(model_class: Any, base: Any, own: Path) -> tuple[str, str]:
    """A base model has the same noise by itself as under a head."""
    under, alone = _loaded(model_class, own), _loaded(base, own)
    told = [*perturb_(under, **NOISE).notices, *perturb_(alone, **NOISE).notices]
    one, other = _tensors(under.base_model), _tensors(alone)
    differ = [name for name in one if name in other and not _same(one[name], other[name])]
    if not differ:
        return EQUAL, ""
    told = [notice for notice in told if "differ" in notice]
    return (TOLD if told else SILENT), f"{len(differ)} of {len(one)}: {', '.join(differ[:3])}"


def _runs(model_class: Any, noisy: Path) -> tuple[str, str]:
    try:
        forward(_loaded(model_class, noisy))
    except Exception as error:  # whatever a model's code raises
        try:
            forward(_loaded(model_class, noisy.with_name("own")))
        except Exception:  # the clean model does not run on these inputs either: no fault of the noise
            return UNBUILT, f"no inputs for it: {_said(error)}"
        raise
    return EQUAL, ""


def _loaded(model_class: Any, folder: Path) -> Any:
    """A model from files; new heads are the same each time."""
    torch.manual_seed(0)
    return model_class.from_pretrained(folder).eval()


def _tensors(model: Any) -> dict[str, torch.Tensor]:
    """Parameters and saved buffers, by name."""
    return {name: tensor.detach() for name, tensor in model.state_dict().items() if isinstance(tensor, torch.Tensor)}


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and bool(torch.equal(_bits(one), _bits(other)))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(torch.uint8) if tensor.dim() else tensor.reshape(1).view(torch.uint8)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
