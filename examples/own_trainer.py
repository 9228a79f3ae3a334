r"""Does noise help in a script of one's own? An ordinary Trainer script: nothing in it knows of noisytune.

    pip install "noisytune[lab]"
    noisytune compare --model MODEL --score eval_accuracy --seeds 8 --command "python own_trainer.py \
        --model_name_or_path {model} --seed {seed} --output_dir {out} --train_file train.csv --dev_file dev.csv"

The files have columns text and label.
"""

import argparse
import csv
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments, set_seed

parser = argparse.ArgumentParser()
for name in ("model_name_or_path", "output_dir", "train_file", "dev_file"):
    parser.add_argument(f"--{name}", required=True)
parser.add_argument("--seed", type=int, default=42)
parser.add_argument("--max_steps", type=int, default=100)
args = parser.parse_args()
set_seed(args.seed)

splits = [list(csv.DictReader(Path(file).read_text().splitlines())) for file in (args.train_file, args.dev_file)]
labels = sorted({row["label"] for row in splits[0]})
tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
model = AutoModelForSequenceClassification.from_pretrained(args.model_name_or_path, num_labels=len(labels))
train, dev = (
    [dict(tokenizer(row["text"], truncation=True, max_length=32), label=labels.index(row["label"])) for row in rows]
    for rows in splits
)

arguments = TrainingArguments(
    output_dir=args.output_dir,
    max_steps=args.max_steps,
    per_device_train_batch_size=8,
    learning_rate=1e-4,
    seed=args.seed,
    save_strategy="no",
    report_to="none",
    use_cpu=not torch.cuda.is_available(),
    disable_tqdm=True,
)
trainer = Trainer(
    model,
    arguments,
    train_dataset=train,
    eval_dataset=dev,
    processing_class=tokenizer,
    compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())},
)
trainer.train()
trainer.save_metrics("eval", trainer.evaluate())
