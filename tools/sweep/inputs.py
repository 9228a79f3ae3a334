"""Inputs that a tiny model's forward pass takes, found from its signature and its configuration."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch

BATCH, LENGTH = 2, 8


def forward(model: Any) -> Any:
    """Run one forward pass, on the first inputs that the model takes.

    Raises:
        Exception: what the model raised on the first of them, when it takes none.
    """
    failed: Exception | None = None
    for inputs in candidates(model):
        try:
            with torch.no_grad():
                return model(**inputs)
        except Exception as error:  # whatever a model's code raises on inputs that do not fit
            failed = failed or error
    raise failed or TypeError(f"{type(model).__name__} takes no input that is known here")


def candidates(model: Any) -> Iterator[Mapping[str, Any]]:
    """What may fit, the likeliest first: words alone, then images, sound and series."""
    takes = inspect.signature(model.forward).parameters
    words = torch.arange(3, 3 + BATCH * LENGTH).reshape(BATCH, LENGTH)
    more: dict[str, Any] = {"decoder_input_ids": words} if "decoder_input_ids" in takes else {}
    if "input_ids" in takes and getattr(model, "main_input_name", "input_ids") == "input_ids":
        yield {"input_ids": words, **more}
        yield {"input_ids": words, "attention_mask": torch.ones_like(words), **more}
    for name, shapes in _shapes(model.config).items():
        for shape in shapes if name in takes else ():
            yield {name: torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape).to(model.dtype), **more}
            if "input_ids" in takes:
                yield {name: torch.zeros(shape, dtype=model.dtype), "input_ids": words, **more}
    if "inputs_embeds" in takes:
        width = _first(model.config, "hidden_size", "d_model", "n_embd", "embed_dim") or 1
        yield {
            "inputs_embeds": torch.linspace(-1, 1, BATCH * LENGTH * width).reshape(BATCH, LENGTH, width).to(model.dtype)
        }
    if "hidden_states" in takes:
        width = _first(model.config, "hidden_size", "d_model", "embed_dim") or 1
        yield {"hidden_states": torch.ones(BATCH, LENGTH, width, dtype=model.dtype)}


def _shapes(config: Any) -> dict[str, list[tuple[int, ...]]]:
    """Shapes of inputs by their names, from what the configuration says of sizes."""
    side = _first(config, "image_size", "input_size", "img_size") or 64
    side = side[0] if isinstance(side, list | tuple) else side
    colours = _first(config, "num_channels", "in_channels", "in_chans", "num_input_channels") or 3
    colours = colours if type(colours) is int else 3
    mels = (
        _first(config, "num_mel_bins", "input_feat_per_channel", "feature_size", "feature_projection_input_dim") or 80
    )
    frames = 2 * (_first(config, "max_source_positions") or 64)
    series = _first(config, "num_input_channels", "input_size") or 1
    context = _first(config, "context_length") or 32
    images = [(BATCH, colours, side, side), (BATCH, colours, 224, 224), (BATCH, 3, 64, 64)]
    video = _first(config, "num_frames", "frames_per_clip", "tubelet_size") or 4
    video = video if type(video) is int else 4
    return {
        "pixel_values": [*images, (BATCH, video, colours, side, side), (BATCH, 1, colours, side, side)],
        "pixel_values_videos": [(BATCH, video, colours, side, side)],
        "input_values": [(BATCH, 4000), (BATCH, 1, 4000), (BATCH, _first(config, "max_length") or 1024, mels)],
        "input_features": [(BATCH, mels, frames), (BATCH, frames, mels), (BATCH, 1, 1001, 64), (BATCH, mels, 3000)],
        "past_values": [(BATCH, context, series), (BATCH, context)],
        "spectrogram": [(BATCH, LENGTH, _first(config, "model_in_dim") or 80)],
    }


def _first(config: Any, *names: str) -> Any:
    """The first of the settings that a configuration has, or one inside it."""
    inside = [value for value in vars(config).values() if hasattr(value, "model_type")]
    for name in names:
        if (value := getattr(config, name, None)) is not None:
            return value
    return next((found for part in inside if (found := _first(part, *names)) is not None), None)
