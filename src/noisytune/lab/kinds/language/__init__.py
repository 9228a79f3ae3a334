"""Completions of a text by a causal language model: the kind ``language``, how its examples become tokens, and how it
answers."""

from noisytune.lab.kinds.language.language import Language
from noisytune.lab.kinds.language.rows import CHOICE, COMPLETION, ELSEWHERE, GIVEN, PASSAGE, PROMPT, RIGHT, TEXT

__all__ = ["CHOICE", "COMPLETION", "ELSEWHERE", "GIVEN", "PASSAGE", "PROMPT", "RIGHT", "TEXT", "Language"]
