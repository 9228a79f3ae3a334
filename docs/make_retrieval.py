"""Writes docs/retrieval.md, with the scores of a model that is not trained.

    python docs/make_retrieval.py MODEL DOWNLOAD

MODEL is a directory with weights, DOWNLOAD the official download of XTREME, of which Tatoeba and the dev files of BUCC
are read.
"""

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoModel

from noisytune._languages import LANGUAGES
from noisytune._metrics import score
from noisytune.lab.kinds import TokenSplit
from noisytune.lab.kinds.retrieval import ORACLE, Retrieval, official_layer
from noisytune.lab.tasks.xtreme.bitexts import read_bitext
from noisytune.lab.trials.evaluate import Evaluator
from noisytune.lab.trials.tokens import load_tokenizer

PAGE = Path(__file__).with_name("retrieval.md")
TATOEBA, BUCC = ("de", "es", "fr", "zh", "sw", "ar"), ("zh",)
MAX_LENGTH, BATCH = 128, 64

HEAD = """\
<!-- Written by docs/make_retrieval.py; edit there. -->

# Retrieval of translations

Tatoeba asks for the translation of each sentence among a thousand, BUCC for the few hundred or thousand pairs that hide
in two collections of sentences. Nothing is trained for either: the model that a study trains on XNLI reads the
sentences, each trial that of its own seed and [arm](words.md#arm), and a search answers.

- **Vectors.** The mean of a layer's hidden states over a sentence's tokens, special ones included, in float32; compared
  by cosine.
- **The layer** stands in each language's entry of the record, with what chose it. `official` is XTREME's, the 8th of 12
  and the 14th of 24, or that share of another number. `dev` is the best on BUCC's dev set of the language, and for
  Tatoeba, which has none, the best on the mean of the other languages. `oracle` is the best on the scored gold itself,
  as the paper takes "the layer that yields the best performance": it flatters every arm, so read differences and not
  scores. A number is that layer, 0 the embeddings.
- **Tatoeba**, `retrieval_accuracy`: how many English sentences have their translation as nearest neighbour.
- **BUCC**, `mining_f1`, as XTREME does it: equal lines are one; each sentence names, among its four nearest neighbours
  on the other side, the one with the largest margin, similarity / ((mean + mean) / 2) over both sides' four nearest;
  pairs are taken by falling margin, each sentence at most once, and those whose margin reaches a threshold are the
  answer. The threshold is the best one on the scored gold; `mining_f1_dev` has the one that is best on dev. A pair with
  a text that stands on several lines is never part of the answer.
- **`bitext_f1`** is today's convention (MTEB's bitext mining): each foreign sentence that has a translation asks for
  its nearest neighbour among all English ones, and F1 of each line as a class is weighted by how often it is gold. No
  margin, no threshold.

A foreign sentence is a row of the items that a record keeps: where one language is scored, McNemar's test and the
bootstrap are over sentences; thresholds stay as they were chosen. A trial counts as collapsed where all sentences have
the same nearest neighbour.

The search is exact: a blocked product that serves both directions at once. `benchmarks/retrieval.py` runs it beside
faiss, whose exact index takes 1.4 to 1.7 times as long on a processor, so nothing has to be installed for it. 100,000
times 100,000 sentences take 0.8 GB.

## Without any training

"""
ABOUT = """\
multilingual-e5-small (12 layers, 384 wide) as it was published: Tatoeba's accuracy in six languages, and BUCC's dev
set of Chinese with all distractors, in points. The command is `python docs/make_retrieval.py MODEL DOWNLOAD`.

"""
FOOT = """
The best layer of each column is bold. Guessing gives 0.1 on Tatoeba (0.3 in Swahili) and 0 on BUCC, where 257 pairs
hide among 8,624 and 13,589 sentences.

**Next:** [XTREME](xtreme.md), whose tasks they are.
"""


def answers(
    kind: Retrieval, evaluator: Evaluator, model: torch.nn.Module, data: TokenSplit
) -> Iterator[dict[str, float]]:
    """The scores with each layer."""
    status, found = kind.judge(evaluator.outputs(model, data), data, None)
    if status != "ok":
        raise SystemExit(f"the model is {status}")
    for layer in kind.layers:
        alone = Retrieval(layer, kind.depth)
        said, _ = alone.settle({"": found[:, [layer]]}, {"": data})[""]
        yield score(kind.name, alone.items(said, data, ()))


def tables(model_dir: Path, download: Path) -> str:
    """Scores by layer, in points."""
    tokenizer = load_tokenizer(model_dir)
    model = AutoModel.from_pretrained(str(model_dir), dtype=torch.float32)
    kind = Retrieval().read_by({"layer": ORACLE}).for_model(model.config)
    evaluator = Evaluator(kind, (), None, kind.collate(tokenizer), BATCH)
    columns, scores = [], []
    mining = {"mining_f1": " BUCC, mining F1", "bitext_f1": " BUCC, bitext F1"}
    asked = [
        *((f"tatoeba/{code}-en.{code}", code, {"retrieval_accuracy": ""}) for code in TATOEBA),
        *((f"bucc2018/{code}-en.dev.{code}", code, mining) for code in BUCC),
    ]
    for file, code, metrics in asked:
        split = read_bitext(download / file, (), code, train=False).split
        if split is None:
            raise SystemExit(f"{download / file}: it hides which lines belong together")
        data = kind.encode(tokenizer, split, MAX_LENGTH, None, file)
        by_layer = list(answers(kind, evaluator, model, data))
        for metric, label in metrics.items():
            columns.append(LANGUAGES[code] + label)
            scores.append([100 * one.get(metric, math.nan) for one in by_layer])
        sys.stderr.write(f"{file}: {len(split):,} sentences\n")
    official = official_layer(kind.depth)
    lines = [f"| layer | {' | '.join(columns)} |", f"|---{'|--:' * len(columns)}|"]
    for layer in kind.layers:
        cells = [f"**{one[layer]:.1f}**" if one[layer] == max(one) else f"{one[layer]:.1f}" for one in scores]
        lines.append(f"| {layer}{', official' * (layer == official)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page(model_dir: Path, download: Path) -> str:
    """The whole page."""
    return HEAD + ABOUT + tables(model_dir, download) + FOOT


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    PAGE.write_text(page(Path(sys.argv[1]), Path(sys.argv[2])), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
