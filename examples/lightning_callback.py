"""What does a Lightning module need to start from noise? Nothing: the callback goes to the Trainer.

    pip install "noisytune[lightning]" transformers
    python lightning_callback.py MODEL

MODEL is a directory or an id such as bert-base-uncased.
"""

import sys

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

from noisytune.integrations.lightning import NoisyTuneCallback


class Classifier(LightningModule):
    """A pretrained encoder and a new head."""

    def __init__(self, name):
        super().__init__()
        self.model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=2).train()

    def training_step(self, batch, index):
        return self.model(**batch).loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=5e-5)


seed_everything(1)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
reviews = [("a warm and funny film", 1), ("dull from end to end", 0), ("I loved it", 1), ("I want my money back", 0)]
examples = [dict(tokenizer(text), label=label) for text, label in reviews] * 8
batches = torch.utils.data.DataLoader(examples, 8, shuffle=True, collate_fn=DataCollatorWithPadding(tokenizer))

callback = NoisyTuneCallback(noise_lambda=0.15)  # the seed is that of seed_everything
trainer = Trainer(max_epochs=2, callbacks=[callback], accelerator="auto", logger=False, enable_progress_bar=False)
trainer.fit(Classifier(sys.argv[1]), batches)
trainer.save_checkpoint("trained.ckpt")

print(torch.load("trained.ckpt", weights_only=True)["noisytune"])
