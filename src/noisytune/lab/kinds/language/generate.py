"""Greedy answers of a causal language model, several prompts at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def answers(
    model: Any, prompts: Sequence[Sequence[int]], limit: int, pad: int, ends: Sequence[int] = ()
) -> list[list[int]]:
    """What a model says after each prompt: the most likely token each time, until it ends or has said enough.

    Prompts are padded on the left, so that all go on at the same place; each gives what it would give alone.

    Args:
        model: of transformers, in evaluation mode.
        prompts: token ids, none of them empty.
        limit: tokens of an answer.
        pad: the id to pad with.
        ends: tokens that end an answer beside those that the model names.

    Returns:
        Token ids of each answer, without what ends it.
    """
    import torch

    if room := _room(model.config, limit):
        prompts = [prompt[-room:] for prompt in prompts]
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    stops = list(dict.fromkeys((*stops_of(model), *ends)))
    said = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=limit,
        # Greedy, whatever the model's own generation_config.json says.
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        temperature=None,
        top_p=None,
        top_k=None,
        use_cache=True,
        eos_token_id=stops or None,
        pad_token_id=pad,
    )
    return [_up_to(row[width:].tolist(), stops) for row in said]


def stops_of(model: Any) -> list[int]:
    """The tokens that end an answer, as the model's generation settings name them, or its configuration."""
    named = model.generation_config.eos_token_id
    named = model.config.get_text_config().eos_token_id if named is None else named
    return [] if named is None else list(named) if isinstance(named, list | tuple) else [named]


def _up_to(ids: list[int], stops: Sequence[int]) -> list[int]:
    """
    >>> _up_to([4, 5, 2, 2], [2])
    [4, 5]
    """
    return ids[: next((i for i, token in enumerate(ids) if token in stops), len(ids))]


def _room(config: Any, limit: int) -> int:
    """Tokens of a prompt for which the model has positions beside those of the answer; 0 where it does not say."""
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None) or 0
    return max(1, positions - limit) if positions else 0
