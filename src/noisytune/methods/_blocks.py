"""Which transformer block a parameter belongs to, found by structure: no list of model types."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from noisytune.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


def base_of(model: nn.Module) -> nn.Module:
    """The model without its head; the module itself where it has none, or is not Hugging Face's.

    DINOv3's base model keeps its blocks under the name of a base model: where the embeddings lie outside, it is none.
    """
    base: nn.Module = getattr(model, "base_model", model)
    table = input_embeddings(model)
    return base if table is None or any(part is table for part in base.modules()) else model


def blocks(model: nn.Module) -> list[nn.Module]:
    """The transformer blocks from the bottom to the top; of an encoder-decoder those of the encoder, then the decoder.

    They are the items of the base model's module lists whose items are of one class and each hold attention, or what
    mixes tokens in its place, and a feed-forward part; of lists inside of such items (Swin's stages) the inner ones.

    Raises:
        ConfigError: there are none, or the parts of a block lie in lists of their own (XLM, FlauBERT).
    """
    from torch import nn

    found: list[nn.Module] = []
    inside: list[str] = []
    for name, part in base_of(model).named_modules():
        if any(name.startswith(outer + ".") for outer in inside):
            continue
        # Not its subclasses, which parametrisations use.
        lists = [child for child in part.children() if type(child) is nn.ModuleList and _holds_parts(child)]
        if len(lists) > 1 and len({len(one) for one in lists}) == 1 and not any(map(_holds_blocks, lists)):
            raise ConfigError(
                f"{type(model).__name__} keeps the parts of its blocks in lists of their own: this method cannot tell "
                "its blocks"
            )
        if type(part) is nn.ModuleList and _holds_blocks(part) and not _holds_lists_of_blocks(part):
            found += list(part)
            inside.append(name)
    if not found:
        raise ConfigError(f"{type(model).__name__} has no list of transformer blocks: this method needs one")
    return found


def _holds_parts(modules: nn.ModuleList) -> bool:
    """One class, with weights."""
    return len({type(item) for item in modules}) == 1 and any(True for _ in modules.parameters())


def _holds_lists_of_blocks(modules: nn.ModuleList) -> bool:
    """Its items are stages, each with blocks of its own."""
    inner = (part for item in modules for part in item.modules())
    return any(type(part) is type(modules) and _holds_blocks(part) for part in inner)


def _holds_blocks(modules: nn.ModuleList) -> bool:
    """One class, and attention and a feed-forward part in each item, or what takes their place: a single part has
    neither name nor layers of the other."""
    if not _holds_parts(modules):
        return False
    item = modules[0]
    names = {type(part).__name__ for part in item.modules()}
    mixes = [part for part in item.modules() if _MIXES.search(type(part).__name__) and part is not item]
    inside = {id(parameter) for part in mixes for parameter in part.parameters()}
    if type(item).__name__ == "ModuleList" or not mixes:
        return False
    rest = [p for p in item.parameters() if id(p) not in inside and p.ndim > 1]
    return bool(rest) or any("Mamba" in name or "Rwkv" in name for name in names)


_MIXES = re.compile(r"att(ention|n)|mixer|fourier|synthesi", re.IGNORECASE)
"""Classes of what lets tokens see each other."""


def called(model: nn.Module, parts: list[nn.Module]) -> list[bool] | None:
    """Whether a forward pass calls each part as a module, so that its hooks run; None where none could be tried.

    SqueezeBERT calls ``layer.forward``, which runs no hook. The pass is on transformers' own dummy input, in
    evaluation, and leaves weights and random state alone.
    """
    import torch

    base: Any = base_of(model)
    seen: set[int] = set()
    handles = [part.register_forward_pre_hook(lambda part, _: seen.add(id(part))) for part in parts]
    training = base.training
    try:
        device = next(base.parameters()).device
        inputs = {name: value.to(device) for name, value in base.dummy_inputs.items() if hasattr(value, "to")}
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
            base.eval()(**inputs)
    except Exception:  # another kind of input, or a model that runs elsewhere only: nothing is known then
        return None
    finally:
        base.train(training)
        for handle in handles:
            handle.remove()
    return [id(part) in seen for part in parts]


def token_embeddings(model: nn.Module) -> list[nn.Module]:
    """The modules that look tokens up: T5's encoder and decoder have one each, with one weight.

    Raises:
        ConfigError: the model does not say where they are, or they are no table of tokens.
    """
    from torch import nn

    table = input_embeddings(model)
    if table is None or getattr(table, "weight", None) is None:
        raise ConfigError(
            f"{type(model).__name__} does not say where its table of tokens is (no get_input_embeddings): this method "
            "needs it"
        )
    if not isinstance(table, nn.Embedding):  # patches of images; I-BERT's table gives a number beside the vectors
        raise ConfigError(
            f"{type(model).__name__} looks its inputs up in a {type(table).__name__}, not in an nn.Embedding: this "
            "method needs one"
        )
    weight = table.weight
    return [part for part in model.modules() if type(part) is type(table) and getattr(part, "weight", None) is weight]


def input_embeddings(model: nn.Module) -> nn.Module | None:
    """What transformers' ``get_input_embeddings`` gives; None where the model does not say."""
    try:
        found: nn.Module | None = getattr(model, "get_input_embeddings", lambda: None)()
    except NotImplementedError:  # CANINE hashes characters into several tables
        return None
    return found


def depth_of(model: nn.Module) -> dict[Any, int]:
    """Parameter -> how far it lies below the top: 0 the head, the pooler and what follows the blocks, 1 the top block,
    ..., n the lowest block, n + 1 the embeddings.

    Parameters of the base model that are in no block go by their names: tables of words and of absolute or relative
    positions, and their norms, belong to the embeddings wherever the model registers them; a final norm to the top. The
    rest belongs to the embeddings if the model registers it before its blocks, and else to the block before it: the
    norm above an encoder, and what leads from an encoder to a decoder, lie as deep as the encoder's top block.
    """
    every = blocks(model)
    depth: dict[Any, int] = {}
    for place, block in enumerate(every):
        for parameter in block.parameters():
            depth.setdefault(parameter, len(every) - place)
    bottom, base = len(every) + 1, base_of(model)
    above = bottom
    for name, parameter in base.named_parameters():
        if parameter in depth:
            above = 0 if depth[parameter] == 1 else depth[parameter]
        elif _BOTTOM.search(name) or _normalises_positions(base, name):
            depth[parameter] = bottom
        else:
            depth[parameter] = 0 if above == bottom and _TOP.search(name) else above
    embeddings = input_embeddings(model)
    for parameter in embeddings.parameters() if embeddings is not None else ():
        depth[parameter] = bottom
    return {parameter: depth.get(parameter, 0) for parameter in model.parameters()}


_TOP = re.compile(r"(^|\.)(final|ln_f|pool|project_out)")
_BOTTOM = re.compile(r"embed|position|relative|(^|[._])rel_|\bw[tp]e\b")


def _normalises_positions(base: nn.Module, name: str) -> bool:
    """DeBERTa's encoder has a norm for its table of relative positions beside that table."""
    parent = base.get_submodule(".".join(name.split(".")[:-2]))
    return "norm" in name.lower() and any("rel_embed" in child for child, _ in parent.named_children())
