"""Where does the noise go in a loop of one's own?

    pip install "noisytune[lab]"
    accelerate launch accelerate_loop.py MODEL

MODEL is a directory or an id such as bert-base-uncased.
"""

import sys

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

from noisytune.torch import perturb_

set_seed(1)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
reviews = [("a warm and funny film", 1), ("dull from end to end", 0), ("I loved it", 1), ("I want my money back", 0)]
examples = [dict(tokenizer(text), label=label) for text, label in reviews] * 8
batches = torch.utils.data.DataLoader(examples, 8, shuffle=True, collate_fn=DataCollatorWithPadding(tokenizer))

model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], num_labels=2)
manifest = perturb_(model, noise_lambda=0.15, seed=1)  # before the optimizer and prepare(), in every process
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
accelerator = Accelerator()
model, optimizer, batches = accelerator.prepare(model, optimizer, batches)

model.train()
for _epoch in range(2):
    for batch in batches:
        loss = model(**batch).loss
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    accelerator.print(f"loss {loss.item():.3f}")

accelerator.print(manifest)
accelerator.unwrap_model(model).save_pretrained("trained", is_main_process=accelerator.is_main_process)
