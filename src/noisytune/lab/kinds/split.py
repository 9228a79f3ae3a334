"""Examples of any kind of task, before a model's tokenizer sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

Target = Any
"""What is to be predicted of an example, as its kind says: a class id, a value, or a tuple of them."""


@dataclass(frozen=True)
class Split:
    """Examples and their targets, in parallel."""

    texts: tuple[tuple[str, ...], ...]
    """One inner tuple an example, as the kind reads it: one text or two."""
    targets: tuple[Target, ...]
    """Class ids (0.0 .. C-1) or values."""
    language: str = ""
    """ISO 639 code, where the kind reads answers by it."""
    groups: tuple[str, ...] = ()
    """What each example belongs to (a conversation, a user), where the source says so: those are not independent."""

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def content(self) -> list[Any]:
        """What a digest is made of."""
        more = [{"groups": self.groups}] if self.groups else []
        return [self.texts, self.targets, *([self.language] if self.language else []), *more]

    def take(self, indices: Sequence[int]) -> Split:
        """The examples at ``indices``, in that order."""
        texts, targets = (tuple(column[i] for i in indices) for column in (self.texts, self.targets))
        groups = tuple(self.groups[i] for i in indices) if self.groups else ()
        return replace(self, texts=texts, targets=targets, groups=groups)
