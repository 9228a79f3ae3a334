"""Under which canonical names the files of a model hold the tensors of a module, and which part of which each one is.

What lies inside the base model is decided by the path in memory, and named by the base model's own files: so it has the
same names with a head and without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from noisytune._perturb import names
from noisytune._perturb.families import known, release
from noisytune.torch._layout import Box, Traced, in_files
from noisytune.torch._receipt import config_of

Shapes = Mapping[str, Sequence[int]]


class Part(NamedTuple):
    """One tensor of the files, as far as a tensor in memory holds it."""

    name: str
    """Canonical."""
    shape: tuple[int, ...]
    """Of the tensor in the files."""
    box: Box | None
    """None where it is the tensor in memory."""


def pretrained_models(module: nn.Module) -> dict[str, nn.Module]:
    """The outermost Hugging Face models inside, by path with a trailing dot (the module itself: an empty path)."""
    found: dict[str, nn.Module] = {}
    for path, part in module.named_modules():
        prefix = path + "." if path else ""
        if config_of(part) is not None and not any(prefix.startswith(outer) for outer in found):
            found[prefix] = part
    return found


def parts_in_files(models: Mapping[str, nn.Module], shapes: Shapes) -> tuple[dict[str, list[Part]], list[str]]:
    """Own name -> the tensors of the files that a tensor holds a part of; and what the user should know.

    Args:
        models: of `pretrained_models`.
        shapes: of the module's tensors, by their own names.
    """
    parts: dict[str, list[Part]] = {}
    notices: list[str] = []
    for name in shapes:
        if not any(name.startswith(path) for path in models):
            outside = (names.HEAD if models else "") + names.canonical(name, None)
            traced = Traced.of(names.without_wrappers(name), shapes[name])
            parts[name] = [part for each in _matrices(outside, traced) for _, part in _parts(*each)]
    for path, model in models.items():
        inside = {name: names.without_wrappers(name.removeprefix(path)) for name in shapes if name.startswith(path)}
        bare = {plain: tuple(shapes[name]) for name, plain in inside.items()}
        found, unknown = _of_model(model, bare, names.without_wrappers(path) if len(models) > 1 else "")
        parts |= {name: found[plain] for name, plain in inside.items()}
        if unknown:
            notices.append(unknown)
    return parts, notices


def _of_model(model: Any, shapes: Shapes, qualifier: str) -> tuple[dict[str, list[Part]], str | None]:
    base, prefix = base_of(model)
    body = {name: shape for name, shape in shapes.items() if name.startswith(prefix)}
    rest = {name: shape for name, shape in shapes.items() if name not in body}
    parts: dict[str, list[Part]] = {name: [] for name in shapes}
    unknown, spelt, held_as = None, dict[str, str](), dict[str, str]()
    for part, namespace, at, chosen in ((base, "", prefix, body), (model, names.HEAD, "", rest)):
        held, failed = _in_files(part, {name.removeprefix(at): shape for name, shape in chosen.items()})
        unknown = failed or unknown
        for in_file, traced in held.items():
            spelt[in_file] = namespace + names.canonical(in_file, None)
            for name, each in _matrices(qualifier + spelt[in_file], traced):
                for tensor, found in _parts(name, each):
                    parts[at + tensor].append(found)
                    if found.box is None and not qualifier:
                        held_as[at + tensor] = name
    return parts, unknown or _of_another_release(model, spelt, held_as)


def _of_another_release(model: Any, spelt: Mapping[str, str], held_as: Mapping[str, str]) -> str | None:
    """A notice where the table of model types, which goes by one release of transformers, names tensors otherwise.

    Args:
        model: of transformers.
        spelt: name in the files of the release that is installed -> canonical name.
        held_as: name in memory -> canonical name, of tensors that are whole in both.
    """
    import transformers

    family = known(str(getattr(model.config, "model_type", "")))
    if family is None or transformers.__version__ == release():
        return None
    ways = (None, *family.prefixes)

    def otherwise(called: Mapping[str, str]) -> list[str]:
        return [name for name, meant in called.items() if meant not in {family.canonical(name, way) for way in ways}]

    for found, where, which in ((otherwise(spelt), "files", ""), (otherwise(held_as), "memory", " with those names")):
        if found:
            return (
                f"{type(model).__name__}: transformers {transformers.__version__} calls {len(found)} tensors "
                f"({found[0]} ...) otherwise in {where} than {release()} does, by which files are read: their noise on "
                f"files{which} differs"
            )
    return None


def base_of(model: Any) -> tuple[Any, str]:
    """The base model inside a model, and its path with a trailing dot; the model itself, and "", where it is one."""
    base = model.base_model
    if _is_base(model):
        return model, ""
    if base is not model:
        inner, below = base_of(_unwrapped(base))  # a head may hold another head, which holds the base
        return inner, f"{model.base_model_prefix}.{below}"
    for name, part in model.named_children():  # where the prefix of the class is the name of no part
        inner = _unwrapped(part)
        if getattr(config_of(inner), "model_type", "") == model.config.model_type and _is_base(inner):
            return inner, name + "."
    return model, ""


def _unwrapped(part: nn.Module) -> nn.Module:
    """What torch.compile, DDP and their like have wrapped."""
    inner = next((found for name in names.WRAPPERS if (found := part._modules.get(name)) is not None), None)
    return part if inner is None else _unwrapped(inner)


def _is_base(model: Any) -> bool:
    """Whether transformers calls a class the base model of its type, whatever lies under the prefix inside it."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    model_type = str(getattr(model.config, "model_type", ""))
    own = {each.__name__ for each in type(model).__mro__}
    classes: Any = MODEL_MAPPING_NAMES.get(model_type, ())
    family = known(model_type)
    return (family is not None and not family.prefixes) or not own.isdisjoint(
        {classes} if isinstance(classes, str) else classes
    )


def _in_files(model: Any, shapes: Shapes) -> tuple[dict[str, Traced], str | None]:
    """Name in the files -> what the tensor is made of; and a notice where a conversion cannot be followed."""
    plain = {name: Traced.of(name, shape) for name, shape in shapes.items()}
    try:
        import transformers.core_model_loading  # noqa: F401
    except ImportError:  # releases without conversions
        return plain, None
    try:
        return in_files(model, shapes), None
    except Exception as error:  # whatever the code of a conversion does with a stand-in
        what = f"{type(model).__name__}: what transformers does with its tensors when it saves them cannot be followed"
        return plain, f"{what} ({type(error).__name__}: {error}): noise on files may differ"


def _matrices(name: str, traced: Traced) -> Iterator[tuple[str, Traced]]:
    """A tensor of the files; each of the experts where it stacks some."""
    if not names.is_stack(name, traced.shape):
        yield name, traced
        return
    for index, expert in enumerate(traced.unbind(0)):
        yield names.expert(name, index), expert


def _parts(name: str, traced: Traced) -> Iterator[tuple[str, Part]]:
    """Of a tensor of the files: which tensor in memory, by its name there, holds which part of it."""
    for box in traced.boxes:
        yield box.tensor, Part(name, tuple(traced.shape), None if traced.is_plain else box)
