"""A YAML file as plain texts, lists and mappings, and the line of each, within limits.

Scalars stay the text that the file holds: what a value is, its setting decides. So ``yes``, ``2020-01-01``, ``010`` and
``1e-3`` mean what they say, and nothing is converted, constructed or run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisytune.errors import ConfigError, DataError, NotFoundError

if TYPE_CHECKING:
    import yaml

MOST_BYTES, MOST_VALUES, DEEPEST = 200_000, 10_000, 20
"""Of a file; of values, with each alias counted as what it stands for; of lists and mappings in each other."""

_NOTHING = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True)
class Document:
    """What a file says."""

    path: Path
    content: dict[str, Any]
    """Texts, lists, mappings and None."""
    lines: dict[tuple[str | int, ...], int] = field(default_factory=dict)
    """Where each value begins, by the keys and places that lead to it."""

    def at(self, *keys: str | int) -> str:
        """Where a value stands, for messages: ``study.yaml, line 3``.

        Args:
            keys: of mappings, and places in lists; the nearest that is known counts.
        """
        known = next((keys[:n] for n in range(len(keys), 0, -1) if keys[:n] in self.lines), None)
        return f"{self.path}, line {self.lines[known]}" if known else str(self.path)


def read_document(path: Path, content: bytes | None = None) -> Document:
    """Read a YAML file that holds one mapping.

    Args:
        path: the file.
        content: what it held, where that was kept; None: what it holds.

    Raises:
        NotFoundError: there is no such file.
        DataError: it cannot be read, or is too large.
        ConfigError: it is no YAML mapping, has a key twice, or goes beyond a limit; names the line.
    """
    import yaml

    try:
        if content is None:
            with path.open("rb") as stream:
                content = stream.read(MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the study: {error}") from error
    if len(content) > MOST_BYTES:
        raise DataError(f"{path}: larger than {MOST_BYTES:,} bytes, which no study is")
    try:
        for event in _shallow(yaml.parse(text), path):
            if getattr(event, "tag", None) is not None:
                raise ConfigError(f"{path}, line {_line(event)}: tags such as {event.tag} are not read; leave it out")
        root = yaml.compose(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path}: expected lines such as  arms: [noisytune, recadam]")
    document = Document(path, {})
    _Reader(document).read(root, ())
    return document


def _shallow(events: Iterator[Any], path: Path) -> Iterator[Any]:
    """The events of a file, up to a depth that a file of lists and mappings may have."""
    import yaml

    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ConfigError(f"{path}, line {_line(event)}: more than {DEEPEST} lists or mappings in each other")
        yield event


class _Reader:
    """Turns nodes into values and notes their lines. Counts what it makes, so that aliases cannot multiply."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._values = 0

    def read(self, node: yaml.Node, keys: tuple[str | int, ...]) -> Any:
        import yaml

        document = self._document
        document.lines[keys] = _line(node)
        self._values += 1
        if self._values > MOST_VALUES:
            raise ConfigError(f"{document.at(*keys)}: more than {MOST_VALUES:,} values, aliases counted")
        if len(keys) > DEEPEST:
            raise ConfigError(f"{document.at(*keys)}: more than {DEEPEST} lists or mappings in each other")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, keys)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(one, (*keys, place)) for place, one in enumerate(node.value)]
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        return None if plain and node.value in _NOTHING else node.value

    def _mapping(self, node: yaml.MappingNode, keys: tuple[str | int, ...]) -> dict[str, Any]:
        import yaml

        # What is filled stands in the document already, where the mapping is the whole of it.
        found: dict[str, Any] = {} if keys else self._document.content
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{self._document.path}, line {_line(key)}: a key must be a word")
            if key.value in found:
                raise ConfigError(f"{self._document.path}, line {_line(key)}: the key {key.value!r} is given twice")
            read = self.read(value, (*keys, key.value))
            if key.value == "<<" and isinstance(read, dict):
                merged = read
            else:
                found[key.value] = read
        found.update({name: value for name, value in merged.items() if name not in found})
        return found


def _line(place: Any) -> int:
    return int(place.start_mark.line) + 1
