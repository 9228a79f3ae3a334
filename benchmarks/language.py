"""What a LoRA trial costs beside TRL's SFTTrainer with the same settings: seconds and memory, alternating.

python benchmarks/language.py [--model DIR] [--steps 16] [--rounds 3]

Each run is a process of its own. Seconds are those from the start of loading to the end of training, without imports
and without scoring, which TRL does not do; a trial's count what it does before, its score on a text it is not trained
on among them. Memory is the most that the process ever held, a trial's with scoring.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from describe import machine

TARGET = 1.1
"""Times what TRL takes, in seconds and in memory."""
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "red", "green", "blue", "black", "small", "large"]
R, ALPHA, BATCH, RATE, LENGTH = 16, 32, 8, 1e-3, 256


def rows(steps: int) -> list[dict[str, str]]:
    """So many batches of prompts with completions."""
    drawn = random.Random(0)
    texts = [" ".join(drawn.choices(WORDS, k=16)) for _ in range(steps * BATCH)]
    return [{"prompt": f"{text}: ", "completion": " ".join(sorted(text.split()))} for text in texts]


def make_model(folder: Path) -> None:
    """A random Llama of SmolLM2-135M's sizes, with a tokenizer of its own."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(WORDS, 400, special_tokens=["<pad>", "<end>"], show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, pad_token="<pad>", eos_token="<end>").save_pretrained(
        folder
    )
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def of_trl(model: Path, steps: int) -> dict[str, Any]:
    """TRL's own training."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl import SFTConfig, SFTTrainer

    data, folder = Dataset.from_list(rows(steps)), tempfile.mkdtemp()
    begun = perf_counter()
    set_seed(0)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    arguments = SFTConfig(
        folder,
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        gradient_checkpointing=False,
        learning_rate=RATE,
        warmup_steps=0.1,
        weight_decay=0.01,
        optim="adamw_torch_fused",
        bf16=False,
        seed=0,
        train_sampling_strategy="group_by_length",
        completion_only_loss=True,
        max_length=LENGTH,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        loaded,
        arguments,
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(r=R, lora_alpha=ALPHA, target_modules="all-linear"),
    )
    trainer.train()
    seconds = perf_counter() - begun
    return {"seconds": seconds, "losses": [one["loss"] for one in trainer.state.log_history if "loss" in one]}


def of_lab(model: Path, steps: int) -> dict[str, Any]:
    """A trial."""
    from noisytune._pretrained import Model
    from noisytune.lab.tasks import TaskOptions, task_from_rows
    from noisytune.lab.trials.arm import PLAIN
    from noisytune.lab.trials.fine_tune import run_trial
    from noisytune.lab.trials.settings import TrainingSettings
    from noisytune.lab.trials.tokens import tokenise
    from noisytune.lab.trials.trial import Trial

    data, found = rows(steps), Model.find(str(model))
    task = task_from_rows(data, TaskOptions(), dev=data[:BATCH])
    how = TrainingSettings(
        epochs=1, batch_size=BATCH, learning_rate=RATE, max_length=LENGTH, lora=f"r={R},alpha={ALPHA}"
    )
    trial = Trial.resolve(found, task, PLAIN, 0, how)
    begun = perf_counter()
    tokens = tokenise(found.path, task, LENGTH)
    made = perf_counter() - begun
    record = run_trial(trial, found.path, tokens)
    seconds = made + sum(record.timing[lap] for lap in ("load", "prepare", "train"))
    return {"seconds": seconds, "losses": record.loss_curve, "laps": record.timing | {"tokens": made}}


def run(which: str, model: Path, steps: int) -> dict[str, Any]:
    """One of the two, in a process of its own."""
    command = [sys.executable, __file__, "--only", which, "--model", str(model), "--steps", str(steps)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="default: random weights of SmolLM2-135M's sizes")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("trl", "lab"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        found = {"trl": of_trl, "lab": of_lab}[asked.only](asked.model, asked.steps)
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(found | {"bytes": held}))
        return
    print(machine())
    with tempfile.TemporaryDirectory() as made:
        if asked.model is None:
            asked.model = Path(made) / "random-135m"
            make_model(asked.model)
        runs: dict[str, list[dict[str, Any]]] = {"trl": [], "lab": []}
        for _ in range(asked.rounds):
            for which, mine in runs.items():
                mine.append(run(which, asked.model, asked.steps))
    worst = max(abs(a - b) / b for a, b in zip(runs["lab"][0]["losses"], runs["trl"][0]["losses"], strict=True))
    print(f"{asked.model.name}, LoRA r={R}, {asked.steps} steps of {BATCH}, {asked.rounds} rounds, alternating:")
    print(f"  the same losses: at most {worst:.0e} apart")
    for what, unit, size in (("seconds", "s", 1.0), ("bytes", "GB", 1e9)):
        ours, theirs = (median(one[what] for one in runs[which]) / size for which in ("lab", "trl"))
        print(f"  a trial {ours:.2f} {unit}, TRL {theirs:.2f} {unit}: {ours / theirs:.3f} times (target {TARGET})")
    laps = runs["lab"][-1]["laps"]
    print(
        "  of the trial: " + ", ".join(f"{name} {laps[name]:.2f} s" for name in ("tokens", "load", "prepare", "train"))
    )


if __name__ == "__main__":
    main()
