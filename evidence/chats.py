"""Writes the chats of study ``language``: the conversations of chatterbot-corpus in English, as JSON Lines.

    python evidence/chats.py evidence/data/chats.jsonl

The first message of a conversation is the user's, the next the assistant's, and so on; a last message without an answer
is left out.
"""

import json
import sys
from pathlib import Path

from noisytune.lab.tasks._corpus import read_corpus

ROLES = ("user", "assistant")


def chats() -> list[dict[str, list[dict[str, str]]]]:
    """Every conversation that has an answer, in the order of the corpus."""
    found = []
    for conversations in read_corpus("english").values():
        for texts in conversations:
            turns = [{"role": ROLES[i % 2], "content": text} for i, text in enumerate(texts)]
            answered = turns[: len(turns) // 2 * 2]
            found += [{"messages": answered}] if answered else []
    return found


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(chat)}\n" for chat in chats()), encoding="utf-8")
