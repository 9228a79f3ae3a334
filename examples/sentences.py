"""Where does the line go when a sentence-transformers model is trained?

    pip install "noisytune[lab]" sentence-transformers datasets
    python sentences.py MODEL

MODEL is a directory or an id such as sentence-transformers/all-MiniLM-L6-v2.
"""

import sys

from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from noisytune.integrations.transformers import attach

model = SentenceTransformer(sys.argv[1])
questions = ["How are you?", "What is it?", "Who wrote this?", "Where is the station?"]
answers = ["Well, thanks.", "A book.", "A friend of mine.", "Down the road."]
pairs = Dataset.from_dict({"anchor": questions * 4, "positive": answers * 4})

arguments = SentenceTransformerTrainingArguments("run", num_train_epochs=2, save_strategy="no", report_to="none")
trainer = SentenceTransformerTrainer(model, arguments, train_dataset=pairs, loss=MultipleNegativesRankingLoss(model))
attach(trainer, noise_lambda=0.15, seed=1)  # the line
trainer.train()
model.save_pretrained("trained")

print(model.similarity(model.encode(questions), model.encode(answers)))
