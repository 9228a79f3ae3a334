"""The same noise in memory and on disk: one model type, each of its classes, every pairing that a user can come by."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from noisytune._perturb.fixed import fixed_globs
from noisytune._perturb.names import match
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
TRAINED_ELSEWHERE = ("patcher.", "backbone.")
TYPES_TRAINED_ELSEWHERE = ("idefics", "flava_image_codebook")
"""Parts, and whole models, that are frozen because they were trained before: weights like others."""
BESIDE = {"qwen2_5_omni": "spk_dict.pt"}
"""Files, pickled and empty here, without which a class does not load, and which `save_pretrained` does not write."""
TOO_LARGE = 100_000_000
"""Parameters."""
NOISE = {"noise_lambda": 0.15, "seed": 1}
MEMORY = "names of memory"
"""Files as `save_pretrained` writes them without the original format."""
STORED = (("float32", "one file"), ("bfloat16", "shards"), ("float32", "shards"), ("bfloat16", "one file"))


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


class Files:
    """A clean checkpoint, and beside it the one that noise on disk makes of it."""

    def __init__(self, clean: Path) -> None:
        self.clean, self.noisy = clean, clean.with_name(clean.name + "-noisy")
        self.notices = perturb_checkpoint(clean, self.noisy, **NOISE).notices
        if not (verified := verify_checkpoint(self.noisy, clean)).ok:
            raise ValueError(f"verify: {verified}")

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Of all noisy files."""
        return _held(self.noisy)


def findings_of(model_type: str, *, is_brief: bool = False) -> Iterator[Finding]:
    """Everything that is tried on a model type.

    Args:
        model_type: such as "bert".
        is_brief: the base model and the first class with a head only, stored in one way each.
    """
    try:
        config = tiny_config(model_type)
        base, *heads = classes(model_type, config)
    except Exception as error:  # the table names it
        yield Finding(model_type, "build", UNBUILT, _said(error))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield from _of_base(base, config, folder, STORED[:1] if is_brief else STORED)
        for number, head in enumerate(heads[:1] if is_brief else heads):
            yield from _of_head(head, base, config, folder, number)


def _of_base(base: Any, config: Any, folder: Path, stored: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    """Every way to store the model, each compared with memory, and what the code keeps from training."""
    name = base.__name__
    try:
        model = build(base, config)
        if (size := sum(parameter.numel() for parameter in model.parameters())) > TOO_LARGE:
            raise ValueError(f"its smallest model has {size:,} parameters")
        kept = not_learnt(base, config)
        for dtype, how in sorted(stored, reverse=True):  # float32 first: what is rounded stays so
            _save(model, folder / f"base-{dtype}-{how}", dtype, how)
            base.from_pretrained(folder / f"base-{dtype}-{how}")
    except Exception as error:  # the table names it
        yield Finding(name, "build", UNBUILT, _said(error))
        return
    yield Finding(name, "never learnt", SILENT if kept else EQUAL, kept)
    made: dict[str, Files] = {}
    for dtype, how in stored:
        place = folder / f"base-{dtype}-{how}"

        def tried(dtype: str = dtype, place: Path = place) -> tuple[str, str]:
            files = Files(place)
            if dtype in made:
                return _same_files(made[dtype], files)
            made[dtype] = files
            return compare(base, files)

        yield _tried(name, f"{dtype}, {how}", tried)
    if "float32" in made:
        yield _tried(name, "forward", lambda: _runs(base, made["float32"]))
    yield from as_in_memory(base, folder / "base-float32-one file", folder / "base-memory")


def _of_head(head: Any, base: Any, config: Any, folder: Path, number: int) -> Iterator[Finding]:
    """A class with a head: stored in one way, in turn; its base model alone; a new head on the files of the base."""
    name, (dtype, how) = head.__name__, STORED[number % len(STORED)]
    own = folder / name
    try:
        _save(build(head, config), own, dtype, how)
        head.from_pretrained(own)
    except Exception as error:  # the table names it
        yield Finding(name, "build", UNBUILT, _said(error))
        return
    made: list[Files] = []

    def tried() -> tuple[str, str]:
        made.append(Files(own))
        return compare(head, made[0])

    yield _tried(name, f"{dtype}, {how}", tried)
    if not made:
        return
    yield _tried(name, "forward", lambda: _runs(head, made[0]))
    yield from as_in_memory(head, own, folder / f"{name}-memory")
    path = next((path for path, part in head.from_pretrained(own).named_modules() if path and type(part) is base), None)
    if path and _lacks(base, own) == set():
        yield _tried(name, "with and without head", lambda: _same_base(head, base, made[0], path))
    is_classifier = name.endswith("ForSequenceClassification")
    plain = folder / "base-float32-one file"
    if path and (number == 0 or is_classifier) and (plain / "config.json").exists():
        new = _lacks(head, plain)
        if new is not None and not any(lacking.startswith(path + ".") for lacking in new):
            again = folder / f"{name}-new"
            again.symlink_to(plain)
            yield _tried(name, "new head", lambda: compare(head, Files(again), new))
    if is_classifier:
        yield _tried(name, "attach", lambda: train_two_steps(head, own, NOISE))


def as_in_memory(model_class: Any, usual: Path, folder: Path) -> Iterator[Finding]:
    """Files with the names and shapes that memory has, where those are others than those of the usual files."""
    name, model = model_class.__name__, model_class.from_pretrained(usual)
    memory = _tensors(model)
    if all(own in memory and memory[own].shape == tensor.shape for own, tensor in _held(usual).items()):
        return
    try:
        model.save_pretrained(folder, save_original_format=False)
        if file := BESIDE.get(model.config.model_type):
            torch.save({}, folder / file)
        again, new = _tensors(model_class.from_pretrained(folder)), _lacks(model_class, usual) or set()
        if lost := [own for own, tensor in memory.items() if own not in new and not _same(tensor, again[own])]:
            raise ValueError(f"its own class does not load {lost[0]} as it saved it")
    except Exception as error:  # the table names it
        yield Finding(name, MEMORY, UNBUILT, _said(error))
        return
    yield _tried(name, MEMORY, lambda: compare(model_class, Files(folder)))


def _held(folder: Path) -> dict[str, torch.Tensor]:
    """What all files of a folder hold."""
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def _save(model: Any, folder: Path, dtype: str, how: str) -> None:
    size = "20KB" if how == "shards" else "1GB"
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=size)
    if file := BESIDE.get(model.config.model_type):
        torch.save({}, folder / file)


def _lacks(model_class: Any, folder: Path) -> set[str] | None:
    """Names of the weights that files do not hold for a class; None where transformers cannot load it from them."""
    try:
        return set(model_class.from_pretrained(folder, output_loading_info=True)[1]["missing_keys"])
    except Exception:  # whatever its code raises on files of another class
        return None


def not_learnt(model_class: Any, config: Any) -> str:
    """Parameters that the class keeps from training and that noisytune does not know as such; empty where none is."""
    globs = tuple(fixed_globs(config.to_dict()))
    with torch.device("meta"):
        model = model_class._from_config(config)
    if config.model_type in TYPES_TRAINED_ELSEWHERE:
        return ""
    kept = [n for n, p in model.named_parameters() if not p.requires_grad and p.numel() > 1]
    names = [n for n in kept if not n.startswith(TRAINED_ELSEWHERE) and not match([n], globs)]
    return f"{len(names)}: {', '.join(names[:3])}" if names else ""


def _tried(name: str, pairing: str, work: Callable[[], tuple[str, str]]) -> Finding:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Finding(name, pairing, *work())
        except NoisyTuneError as error:
            return Finding(name, pairing, REFUSED, _said(error))
        except Exception as error:  # the table names it
            return Finding(name, pairing, BROKEN, _said(error))


def compare(model_class: Any, files: Files, new: Collection[str] = ()) -> tuple[str, str]:
    """Noise in memory and on disk, and what differs between the two.

    Args:
        model_class: to load.
        files: clean and noisy.
        new: tensors that the files lack. Some classes leave such memory as it is: here it becomes zero.
    """
    memory, noisy = _loaded(model_class, files.clean), _loaded(model_class, files.noisy)
    for name, tensor in [*_tensors(memory).items(), *_tensors(noisy).items()]:
        if name in new:
            tensor.zero_()
    before = {name: tensor.clone() for name, tensor in _tensors(memory).items()}
    notices = perturb_(memory, **NOISE).notices
    disk, after = _tensors(noisy), _tensors(memory)
    differ = [name for name in after if not _agree(after[name], disk[name])]
    if not differ:
        changed = sum(not _same(after[name], before[name]) for name in after)
        return (EQUAL, "") if changed else (BROKEN, "nothing took noise")
    some = ", ".join(f"{name} {_who(name, before, after, disk)}" for name in differ[:3])
    return _judged(f"{len(differ)} of {len(after)}: {some}", *notices, *files.notices)


def _judged(what: str, *notices: str) -> tuple[str, str]:
    told = [notice for notice in notices if "differ" in notice]
    return (TOLD, f"{told[0]}: {what}") if told else (SILENT, what)


def _same_files(one: Files, other: Files) -> tuple[str, str]:
    """The same model stored otherwise has the same noise."""
    differ = [name for name, tensor in one.tensors.items() if not _same(tensor, other.tensors[name])]
    return (SILENT, f"{len(differ)} tensors: {', '.join(differ[:3])}") if differ else (EQUAL, "")


def _who(name: str, before: Mapping[str, Any], after: Mapping[str, Any], disk: Mapping[str, Any]) -> str:
    if _same(before[name], after[name]):
        return "(on disk only)"
    return "(in memory only)" if _same(before[name], disk[name]) else "(other noise)"


def _same_base(head: Any, base: Any, files: Files, path: str) -> tuple[str, str]:
    """A base model has the same noise by itself as under a head, in memory and from the noisy files."""
    under, alone = _loaded(head, files.clean), _loaded(base, files.clean)
    notices = [*perturb_(under, **NOISE).notices, *perturb_(alone, **NOISE).notices, *files.notices]
    one, other, disk = map(_tensors, (under.get_submodule(path), alone, _loaded(base, files.noisy)))
    both = [name for name in one if name in other]  # a head may bring further names of tied tensors
    differ = [name for name in both if not (_same(one[name], other[name]) and _agree(one[name], disk[name]))]
    return _judged(f"{len(differ)} of {len(both)}: {', '.join(differ[:3])}", *notices) if differ else (EQUAL, "")


def _runs(model_class: Any, files: Files) -> tuple[str, str]:
    try:
        forward(_loaded(model_class, files.noisy))
    except Exception as error:  # whatever a model's code raises
        try:
            forward(_loaded(model_class, files.clean))
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


def _agree(memory: torch.Tensor, disk: torch.Tensor) -> bool:
    """Whether noise is the same; files in bfloat16 round what the model keeps in float32 whatever its files are in."""
    is_wider = memory.dtype == torch.float32
    return _same(memory, disk) or (is_wider and _same(memory.bfloat16().float(), disk))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(torch.uint8) if tensor.dim() else tensor.reshape(1).view(torch.uint8)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
