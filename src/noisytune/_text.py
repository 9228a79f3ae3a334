"""How is text from strangers shown? One function for each medium: terminal, Markdown, HTML.

Names of files, tensors, classes and tasks may hold anything: escape sequences that repaint a terminal, characters that
turn the direction of writing, markup. Each passes one of these functions on its way to a reader, and is text after it.
"""

from __future__ import annotations

import html as _html
import re
import unicodedata

_JOINERS = "\u200c\u200d"
"""Between letters of Persian and Indic scripts and in emoji: of the invisible characters the only ones kept."""
_LINE_ENDS = re.compile("\r\n|[\t-\r\x1c-\x1f\x85\u2028\u2029]")
_MARKUP = re.compile(r"[\\`*_\[\]|#~$@]|:(?=//)|(?<=www)\.", re.IGNORECASE)
"""Characters of Markdown, and those that make a bare address or name a link."""
_FORMULA = ("=", "+", "-", "@")
"""What begins a formula of a spreadsheet."""
_LINE_START = re.compile(r"^ ?(?:(?P<mark>[-+](?= |$)|-(?=-)|=)|\d{1,9}(?P<point>[.)](?= |$)))")
"""What begins a list, a rule or a heading, where the text stands first on its line."""


def plain(text: object) -> str:
    r"""The text on one line, with invisible characters spelled out: what the three media have in common.

    Ends of lines and tabs become spaces. Control characters, those that set the direction of writing, lone halves of
    a surrogate pair and characters that XML forbids become their Python escapes: different names stay different.

    Args:
        text: anything; what is no text is shown as `str` has it.

    >>> plain("a\x1b[31mb\u202e\nc")
    'a\\x1b[31mb\\u202e c'
    """
    line = _LINE_ENDS.sub(" ", str(text))
    return line if line.isprintable() else "".join(map(_spelled, line))


def _spelled(character: str) -> str:
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in _JOINERS
    code = ord(character)
    if hidden or code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF:
        return character.encode("unicode_escape").decode("ascii")
    return character


def cell(text: object) -> str:
    """Text in a cell of a CSV file, which a spreadsheet would take for a formula where it begins like one.

    >>> cell("=1+1"), cell("a=1")
    ("'=1+1", 'a=1')
    """
    shown = plain(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def encodable(name: str) -> str:
    r"""A file's name as UTF-8 can hold it: bytes that are no text in the locale become Python escapes.

    >>> encodable("caf\udce9")
    'caf\\udce9'
    """
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def terminal(text: object) -> str:
    r"""Text that a terminal shows as it is, on one line.

    Rich still reads markup in it: print it with `noisytune._console.Console`, which does not.

    >>> terminal("[bold]\x1b]8;;http://x\x07")
    '[bold]\\x1b]8;;http://x\\x07'
    """
    return plain(text)


def markdown(text: object) -> str:
    r"""Text that Markdown shows as it is, on one line: no emphasis, link, image, HTML, table cell, list or mention.

    >>> markdown("1. a|b *c* <d> https://e")
    '1\\. a\\|b \\*c\\* &lt;d&gt; https\\://e'
    """
    line = _MARKUP.sub(r"\\\g<0>", re.sub(r"\s+", " ", plain(text)))
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    first = _LINE_START.match(line)
    if not first:
        return line
    place = max(first.start("mark"), first.start("point"))
    return f"{line[:place]}\\{line[place:]}"


def html(text: object) -> str:
    r"""Text that HTML shows as it is, in an element or in a quoted attribute.

    >>> html("<a href='x'>\x1b")
    '&lt;a href=&#x27;x&#x27;&gt;\\x1b'
    """
    return _html.escape(plain(text))
