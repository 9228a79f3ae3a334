"""Translations found by the nearness of sentence vectors: the trained model reads, a search answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from noisytune._metrics import Items, score
from noisytune._metrics.retrieval import retrieval_items
from noisytune.errors import ConfigError
from noisytune.lab.kinds.columns import Floats, Ragged, TokenSplit
from noisytune.lab.kinds.search import LINES, answers_of, lines_of, references_of, said_by, threshold_of
from noisytune.lab.kinds.split import Split, Target
from noisytune.lab.kinds.texts import Texts
from noisytune.lab.kinds.units import Units
from noisytune.lab.kinds.vectors import room
from noisytune.records import Status

if TYPE_CHECKING:
    from torch import Tensor

OFFICIAL, DEV, ORACLE = "official", "dev", "oracle"
"""Ways to choose the layer."""
DEV_OF = "dev-"
"""What is chosen for the split ``de`` is chosen on the split ``dev-de``, where there is one."""


@dataclass(frozen=True)
class Retrieval(Texts):
    """Texts are the sentences of two sides; targets say the side and the translations: `noisytune.lab.kinds.bitext`.

    A sentence's vector is the mean of a layer's hidden states over its tokens, special ones included. The same text on
    several lines is one entry of the search, which its first line stands for. Where each sentence has one translation,
    English sentences look for the foreign ones, and accuracy is asked. Where others stand between them, pairs are
    mined; none is said of a text on several lines, since it would not tell which line.

    Nothing is trained: such a task is scored with the model of another one.

    Source: XTREME's ``evaluate_retrieval.py`` and ``utils_retrieve.py``. Its scripts cut at 512 tokens, a study at its
    ``max_length``.
    """

    layer: str | int = OFFICIAL
    """Whose hidden states are read: ``official``, XTREME's 8 of 12 layers and 14 of 24, or that share; ``dev``, the
    best on the split ``dev-NAME``, else on the mean of the other splits; ``oracle``, the best on the scored gold
    itself; or a number, 0 for the embeddings."""
    depth: int = 0
    """Layers of the model; 0 where no model is at hand."""

    name = "retrieval"
    is_trained = False
    has_classes = False
    keeps_items = True
    call = {"output_hidden_states": True}  # noqa: RUF012

    def read_by(self, reading: Mapping[str, Any]) -> Retrieval:
        """With its setting ``layer``."""
        super().read_by({name: value for name, value in reading.items() if name != "layer"})
        layer = reading.get("layer", OFFICIAL)
        if layer in (OFFICIAL, DEV, ORACLE):
            return replace(self, layer=str(layer))
        if isinstance(layer, bool) or not str(layer).isdecimal():
            raise ConfigError(f"layer {layer!r}: choose {OFFICIAL}, {DEV}, {ORACLE} or a whole number >= 0")
        return replace(self, layer=int(layer))

    def for_model(self, config: Any) -> Retrieval:
        """With the number of its layers."""
        if config.is_encoder_decoder:
            raise ConfigError("retrieval reads one stack of layers; the model has an encoder and a decoder")
        depth = int(config.get_text_config().num_hidden_layers)
        if isinstance(self.layer, int) and self.layer > depth:
            raise ConfigError(f"layer {self.layer}: the model has {depth} layers; choose 0 to {depth}")
        return replace(self, depth=depth)

    @property
    def layers(self) -> Sequence[int]:
        """Those that are read.

        >>> [list(Retrieval(depth=depth).layers) for depth in (2, 6, 12, 24, 36)]
        [[1], [4], [8], [14], [21]]
        """
        if self.layer == OFFICIAL:
            return [official_layer(self.depth)]
        return [self.layer] if isinstance(self.layer, int) else range(self.depth + 1)

    def check(self, where: str, targets: Sequence[Target]) -> None:
        """None."""
        if targets:
            raise ConfigError(f"{where}: retrieval trains nothing; give the task whose model is scored as trained_on")

    def strata(self, targets: Sequence[Target]) -> Sequence[float]:
        """None: among a part of the sentences a search is easier."""
        raise ConfigError("dev_size: retrieval searches all of its sentences; leave dev_size out")

    def encode(self, tokenizer: Any, split: Split, max_length: int, types: bool | None, where: str) -> TokenSplit:
        """One row a sentence, cut at ``max_length``."""
        sides = tuple(float(target[0]) for target in split.targets)
        seen: dict[tuple[float, str], int] = {}
        lines, numbers = [], dict.fromkeys(sides, 0)
        for side, (text,) in zip(sides, split.texts, strict=True):
            lines.append((numbers[side], seen.setdefault((side, text), numbers[side])))
            numbers[side] += 1
        data = super().encode(tokenizer, replace(split, targets=sides), max_length, types, where)
        return replace(data, targets=Ragged.of(split.targets, np.float64), notes={LINES: Ragged.of(lines, np.int64)})

    def head(self, labels: Sequence[str]) -> dict[str, Any]:
        """None."""
        return {}

    def labels(self, data: TokenSplit, units: Units | None) -> Sequence[Any]:
        """None."""
        return []

    def divergence(self, one: Tensor, other: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """None."""
        raise ConfigError("retrieval trains nothing")

    def outputs(self, found: Any, inputs: Mapping[str, Any]) -> list[Any]:
        """The vectors of each sentence, shape (layers, width), float32."""
        mask = inputs["attention_mask"].unsqueeze(-1)
        states = [found.hidden_states[layer].float() for layer in self.layers]
        means = [(state * mask).sum(dim=1) / mask.sum(dim=1) for state in states]
        return list(np.stack([mean.cpu().numpy() for mean in means], axis=1))

    def keep(self, rows: int, output: Any) -> Any:
        """One array of all sentences' vectors, on disk where it is large."""
        return room(rows, *output.shape)

    def judge(self, outputs: Any, data: TokenSplit, units: Units | None) -> tuple[Status, Floats]:
        """What the search answers with each layer, shape (foreign sentences, layers, 4): see `search.answers_of`.

        Collapsed where, with each layer, all sentences have the same nearest neighbour.
        """
        layers = np.asarray(outputs).swapaxes(0, 1)  # one at a time: all of them may be more than fits in memory
        if not all(np.isfinite(vectors).all() for vectors in layers):
            return "diverged", np.empty(0)
        found = np.stack([answers_of(vectors, data) for vectors in layers], axis=1)
        nearest = found[:, :, 3]
        return ("collapsed" if (nearest == nearest[:1]).all() else "ok"), found

    def settle(
        self, answers: Mapping[str, Floats], splits: Mapping[str, TokenSplit]
    ) -> dict[str, tuple[Floats, dict[str, Any]]]:
        """Choose each split's layer and thresholds. The answers become those of `search.said_by`.

        What is chosen is told as ``layer``, ``layer_by`` (``official``, ``asked``, ``dev``, ``others``, ``oracle``),
        and where pairs are mined ``threshold`` (best on the split's own gold) and ``threshold_dev``.
        """
        gold = {name: references_of(splits[name]) for name in answers}
        worth = {
            name: [_worth(one, gold[name], lines_of(splits[name])) for one in found.swapaxes(0, 1)]
            for name, found in answers.items()
        }
        settled = {}
        for name, found in answers.items():
            place, by = self._choose(name, worth)
            dev, here = f"{DEV_OF}{name}", found[:, place]
            own = threshold_of(here, gold[name])
            elsewhere = threshold_of(answers[dev][:, place], gold[dev]) if dev in answers else math.nan
            chosen = {"layer": self.layers[place], "layer_by": by}
            thresholds = {"threshold": own, "threshold_dev": elsewhere}
            chosen |= {what: value for what, value in thresholds.items() if math.isfinite(value)}
            settled[name] = said_by(here, own, elsewhere), chosen
        return settled

    def references(self, data: TokenSplit) -> Floats:
        """The lines of each foreign sentence's translations, shape (foreign sentences, most)."""
        return references_of(data)

    def items(self, predictions: Floats, data: TokenSplit, labels: Sequence[str]) -> Items:
        """Hits, pairs found, wrong and missed, and neighbours of each foreign sentence."""
        return retrieval_items(predictions, references_of(data), lines_of(data))

    def _choose(self, name: str, worth: Mapping[str, Sequence[float]]) -> tuple[int, str]:
        """The place of a split's layer among those that are read, and by what it was chosen."""
        if self.layer not in (DEV, ORACLE):
            return 0, OFFICIAL if self.layer == OFFICIAL else "asked"
        if self.layer == ORACLE:
            return int(np.argmax(worth[name])), ORACLE
        dev = name if name.startswith(DEV_OF) else f"{DEV_OF}{name}"
        if dev in worth:
            return int(np.argmax(worth[dev])), DEV
        others = [values for other, values in worth.items() if other != name and not other.startswith(DEV_OF)]
        if others:
            return int(np.mean(others, axis=0).argmax()), "others"
        return official_layer(self.depth), OFFICIAL


def official_layer(depth: int) -> int:
    """XTREME's layer: 8 of 12, 14 of 24; of other depths the share of the nearer one of these.

    Source: ``run_tatoeba.sh`` and ``run_bucc2018.sh``, which count from 0 without the embeddings: 7 and 13.
    """
    return round(depth * (8 / 12 if depth <= 18 else 14 / 24))


def _worth(answers: Floats, gold: Floats, lines: Floats) -> float:
    """What a layer is chosen by: accuracy, or F1 at its best threshold where pairs are mined."""
    threshold = threshold_of(answers, gold)
    scores = score(Retrieval.name, retrieval_items(said_by(answers, threshold, math.nan), gold, lines))
    return scores.get("retrieval_accuracy", scores.get("mining_f1", 0.0))
