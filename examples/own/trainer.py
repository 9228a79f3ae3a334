"""Text classification with the transformers Trainer, as anybody's script: nothing here knows of NoisyTune."""

import argparse
import csv
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments, set_seed

parser = argparse.ArgumentParser()
parser.add_argument("--model_name_or_path", required=True)
parser.add_argument("--seed", type=int, default=42)
parser.add_argument("--output_dir", required=True)
parser.add_argument("--train_file", required=True)
parser.add_argument("--dev_file", required=True)
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


def accuracy(found):
    return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}


trainer = Trainer(
    model, arguments, train_dataset=train, eval_dataset=dev, processing_class=tokenizer, compute_metrics=accuracy
)
trainer.train()
trainer.save_metrics("eval", trainer.evaluate())
