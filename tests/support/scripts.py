"""Scripts as users have them, small: they read the weights as bytes, and learn nothing."""

from __future__ import annotations

import sys
from pathlib import Path

HONEST = """
import argparse, hashlib, json, os, random
from pathlib import Path

parser = argparse.ArgumentParser()
for name in ("--model", "--seed", "--out"):
    parser.add_argument(name)
asked = parser.parse_args()
weights = hashlib.sha256((Path(asked.model) / "model.safetensors").read_bytes()).hexdigest()
draw = random.Random(asked.seed + weights)
rows = [{"id": i, "prediction": draw.choice(["yes", "no"]), "reference": "yes" if i % 3 else "no"} for i in range(40)]
accuracy = sum(row["prediction"] == row["reference"] for row in rows) / len(rows)
out = Path(asked.out)
(out / "all_results.json").write_text(json.dumps({"eval_accuracy": accuracy, "eval_loss": draw.random(), "runtime": 1}))
(out / "predictions.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
print(f"{{'eval_accuracy': {accuracy}}}")
"""
"""Its scores follow from the weights and the seed."""


def written(folder: Path, script: str, name: str = "train.py") -> str:
    """Write a script, and give the command that runs it.

    Args:
        folder: where it goes; made if it is missing.
        script: what it says.
        name: of its file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(script)
    return f"{sys.executable} -S {folder / name} --model {{model}} --seed {{seed}} --out {{out}}"
