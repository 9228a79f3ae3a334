"""Where does the line go in a Trainer, and how does the trained model show that it had noise?

    pip install "noisytune[lab]"
    python trainer.py MODEL

MODEL is a directory or an id on the Hub, such as bert-base-uncased.
"""

import sys

from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

from noisytune.integrations.transformers import attach
from noisytune.torch import receipt

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], num_labels=2)
reviews = [("a warm and funny film", 1), ("dull from end to end", 0), ("I loved it", 1), ("I want my money back", 0)]
examples = [dict(tokenizer(text), label=label) for text, label in reviews] * 8

arguments = TrainingArguments("run", num_train_epochs=2, save_strategy="no", report_to="none", seed=1)
trainer = Trainer(model, arguments, train_dataset=examples, processing_class=tokenizer)
attach(trainer, noise_lambda=0.15)  # the line: the noise goes in when train() begins, with the seed of the arguments
trainer.train()
trainer.save_model("trained")

print(receipt(AutoModelForSequenceClassification.from_pretrained("trained")))
