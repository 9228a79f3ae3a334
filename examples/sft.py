"""Where does the line go in TRL's SFTTrainer?

    pip install "noisytune[lab]" trl
    python sft.py MODEL

MODEL is a causal language model: a directory or an id such as HuggingFaceTB/SmolLM2-135M.
"""

import sys

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

from noisytune.integrations.transformers import attach

model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
sums = Dataset.from_dict({"prompt": [f"{n} + 1 =" for n in range(16)], "completion": [f" {n + 1}" for n in range(16)]})

on_gpu = torch.cuda.is_available()
arguments = SFTConfig("run", num_train_epochs=2, max_length=64, bf16=on_gpu, save_strategy="no", report_to="none")
trainer = SFTTrainer(model, arguments, train_dataset=sums)
attach(trainer, noise_lambda=0.1, seed=1)  # the line; with peft_config= the base below the adapter gets the noise
trainer.train()
trainer.save_model("trained")

print(trainer.model.config.noisytune)
