"""Writes docs/methods.md from the docstrings and the settings of the methods: ``python docs/make_methods.py``."""

import inspect
import sys
from dataclasses import fields
from pathlib import Path

from noisytune.methods import METHODS, Method, Stage, setting_of

PAGE = Path(__file__).with_name("methods.md")

HEAD = """\
<!-- Written by docs/make_methods.py from src/noisytune/methods; edit there. -->

# Methods

Other ways to fine-tune a pretrained model, each an [arm](words.md#arm) of a study, alone or on top of others:

```console
noisytune compare --arm recadam --arm noisytune+recadam --arm "noisytune(0.15)+mixout(p=0.8)"
```

Settings stand in parentheses; the first may go without its name. `noisytune methods` shows this page in short.

What runs in which order: layers are re-initialised, NoisyTune adds its noise, copies of the pretrained weights are
taken, Mixout and hooks are attached, the optimizer is built, the model trains, everything is detached.

**Anchors.** RecAdam, Mixout and L2-SP pull towards "the pretrained weights". With NoisyTune in the same arm these are
the noised ones (`anchor=noised`), as the paper adds noise before fine-tuning begins. `anchor=clean` takes the weights
before the noise: RecAdam then erases most of it within some fifty steps. Each trial records which.

**Outside a study.** Each method's module has its equations as plain functions:

```python
from noisytune.methods import mixout
from noisytune.methods.recadam import RecAdam

mixout.attach_(model, p=0.9)
body = getattr(model, "base_model", model)  # a new head gets no anchor
anchors = {p: p.detach().clone() for p in body.parameters()}
optimizer = RecAdam(model.parameters(), anchors, lr=2e-5)
# ... train ...
mixout.detach_(model)
```

**At their defaults.** [What each does in a short training](defaults.md), with plain fine-tuning beside it. An arm that
would do next to nothing, or pull too hard, says so before it runs.

**Models.** Methods find blocks, embeddings and dropout by structure. Where a model has none of what a method needs, the
method is refused before anything is trained.

| method | what it does | cost |
|---|---|---|
"""


NEXT = "\n**Next:** [what each does at its default](defaults.md), or [each arm at its best](tune.md).\n"


def section(name: str, method: type[Method]) -> str:
    """Heading, the module's text, the table of settings, exclusions."""
    title, _, text = (inspect.getdoc(inspect.getmodule(method)) or "").partition("\n\n")
    lines = [f"## {name}", "", title, "", *_with_formulas(text), ""]
    lines += ["| setting | default | allowed | what it does |", "|---|---|---|---|"]
    for field in fields(method):
        setting = setting_of(field)
        default = {(): "none", None: "auto"}.get(field.default, str(field.default).removesuffix(".0"))
        cells = (f"`{field.name}`", f"`{default}`", setting.allowed, setting.about)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    lines += ["", f"Source: {method.source}. Cost: {method.cost}."]
    excluded = dict(method.excludes) | {
        other: kind.excludes[name] for other, kind in METHODS.items() if name in kind.excludes
    }
    lines += [line for other, reason in excluded.items() for line in ("", f"Not with `{other}`: {reason}.")]
    if method.stage is not Stage.TRAIN:
        lines += ["", "It changes the weights, so it comes first in an arm."]
    return "\n".join(lines) + "\n"


def _with_formulas(text: str) -> list[str]:
    """Indented paragraphs become blocks; double backticks become single ones."""
    lines = []
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("    "):
            lines += ["```text", *(line.removeprefix("    ") for line in paragraph.splitlines()), "```", ""]
        else:
            lines += [" ".join(paragraph.replace("``", "`").split()), ""]
    return lines[:-1]


def page() -> str:
    """The whole page."""
    rows = "".join(f"| [{n}](#{n}) | {m.summary} | {m.cost} |\n" for n, m in METHODS.items())
    return HEAD + rows + "".join("\n" + section(name, method) for name, method in METHODS.items()) + NEXT


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}: {len(METHODS)} methods\n")
