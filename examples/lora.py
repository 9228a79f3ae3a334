"""How does an adapter find the noise again that it was trained on?

    pip install "noisytune[peft]"
    python lora.py MODEL

MODEL is a causal language model: a directory or an id such as HuggingFaceTB/SmolLM2-135M.
"""

import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from noisytune.integrations.transformers import attach, load_adapter

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
base = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=4))
tokens = [tokenizer("A little noise can help.")["input_ids"]] * 16
examples = [{"input_ids": ids, "labels": ids} for ids in tokens]

arguments = TrainingArguments("run", num_train_epochs=2, save_strategy="no", report_to="none")
trainer = Trainer(model, arguments, train_dataset=examples)
attach(trainer, noise_lambda=0.1, seed=1)  # the base gets the noise, the adapter none
trainer.train()
trainer.save_model("adapter")  # with noisytune.json beside it

clean = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
loaded = load_adapter(clean, "adapter")  # adds the noise, then the adapter
ids = torch.tensor(tokens[:1])
with torch.inference_mode():
    same = torch.equal(loaded.eval()(ids).logits, model.eval().cpu()(ids).logits)
print("the loaded adapter says what the trained one said:", same)
