r"""Does noise help in a bare PyTorch loop? It prints its score, and writes what it predicts of each example.

    pip install "noisytune[lab]"
    noisytune compare --model MODEL --score accuracy --seeds 8 --command \
        "python own_loop.py {model} {out} train.csv dev.csv --seed {seed}"

The files have columns text and label.
"""

import argparse
import csv
import json
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

parser = argparse.ArgumentParser()
for name in ("model", "out", "train", "dev"):
    parser.add_argument(name)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=100)
args = parser.parse_args()
torch.manual_seed(args.seed)

train, dev = (list(csv.DictReader(Path(file).read_text().splitlines())) for file in (args.train, args.dev))
labels = sorted({row["label"] for row in train})
tokenizer = AutoTokenizer.from_pretrained(args.model)
model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=len(labels)).train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)


def batch(rows):
    return tokenizer([row["text"] for row in rows], truncation=True, max_length=32, padding=True, return_tensors="pt")


for step in range(args.steps):
    rows = [train[int(i)] for i in torch.randint(len(train), (8,))]
    loss = model(**batch(rows), labels=torch.tensor([labels.index(row["label"]) for row in rows])).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step} loss {loss.item():.4f}")

with torch.inference_mode():
    predicted = [labels[i] for i in model.eval()(**batch(dev)).logits.argmax(-1)]
with (Path(args.out) / "predictions.jsonl").open("w", encoding="utf-8") as stream:
    for i, (row, label) in enumerate(zip(dev, predicted, strict=True)):
        stream.write(json.dumps({"id": i, "prediction": label, "reference": row["label"]}) + "\n")
print("accuracy:", sum(row["label"] == label for row, label in zip(dev, predicted, strict=True)) / len(dev))
