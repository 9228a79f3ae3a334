"""Which transformer block a parameter belongs to, found by structure: no list of model types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from noisytune.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


def base_of(model: nn.Module) -> nn.Module:
    """The model without its head; for other modules than Hugging Face's the module itself."""
    base: nn.Module = getattr(model, "base_model", model)
    return base


def blocks(model: nn.Module) -> list[nn.Module]:
    """The transformer blocks from the bottom to the top; of an encoder-decoder those of the encoder, then the decoder.

    They are the items of the base model's outermost module lists that hold several modules of one class.

    Raises:
        ConfigError: there are none.
    """
    from torch import nn

    found: list[nn.Module] = []
    inside: list[str] = []
    for name, part in base_of(model).named_modules():
        if any(name.startswith(outer + ".") for outer in inside):
            continue
        if isinstance(part, nn.ModuleList) and len(part) > 0 and len({type(item) for item in part}) == 1:
            found += list(part)
            inside.append(name)
    if not found:
        raise ConfigError(f"{type(model).__name__} has no list of transformer blocks: this method needs one")
    return found


def token_embeddings(model: nn.Module) -> list[nn.Module]:
    """The modules that look tokens up: T5's encoder and decoder have one each, with one weight.

    Raises:
        ConfigError: the model does not say where they are.
    """
    find: Any = getattr(model, "get_input_embeddings", None)
    if find is None:
        raise ConfigError(f"{type(model).__name__} is no transformers model: it has no get_input_embeddings")
    weight = find().weight
    return [part for part in model.modules() if type(part) is type(find()) and getattr(part, "weight", None) is weight]


def depth_of(model: nn.Module) -> dict[Any, int]:
    """Parameter -> how far it lies below the top: 0 the head, the pooler and what follows the blocks, 1 the top block,
    ..., n the lowest block, n + 1 the embeddings.

    Parameters of the base model that are in no block belong to the embeddings if the model reaches them before its
    blocks, in the order in which it registers its modules.
    """
    every = blocks(model)
    depth: dict[Any, int] = {}
    for place, block in enumerate(every):
        for parameter in block.parameters():
            depth.setdefault(parameter, len(every) - place)
    reached = False
    for parameter in base_of(model).parameters():
        if parameter in depth:
            reached = True
        else:
            depth[parameter] = 0 if reached else len(every) + 1
    embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    for parameter in embeddings.parameters() if embeddings is not None else ():
        depth[parameter] = len(every) + 1
    return {parameter: depth.get(parameter, 0) for parameter in model.parameters()}
