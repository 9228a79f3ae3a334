"""Text from strangers stays text in every medium."""

import html as html_of_python
import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.table import Table
from rich.text import Text

from noisytune._console import Console
from noisytune._text import html, markdown, plain, terminal

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
ANY = st.text(st.characters(exclude_categories=())) | st.text("\x1b[]()<>*_`|#~\\!:/@.-+=1 \n\r\x07\u202ea\udc80")


def shown(line: str, table: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=2000, force_terminal=True, color_system=None)
    if table:
        rows = Table(line, box=None)
        rows.add_row(line)
        console.print(rows)
    else:
        console.print(line)
    return out.getvalue()


@given(ANY)
def test_nothing_invisible_is_left(text: str) -> None:
    for shown in (terminal, markdown, html):
        line = shown(text)
        line.encode()
        assert not [
            c for c in line if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\u200c\u200d"
        ]


@given(ANY)
def test_html_is_the_plain_text_for_a_browser(text: str) -> None:
    assert html_of_python.unescape(html(text)) == plain(text)
    assert not set(html(text)) & set("<>\"'")


@pytest.mark.parametrize("place", ["{}", "- {}", "# {}", "> {}", "| {} | b |\n|---|---|\n| {} | c |\n"])
@given(text=ANY.filter(lambda text: plain(text).strip()))
def test_a_reader_of_markdown_finds_the_plain_text(place: str, text: str) -> None:
    usual, found = MARKDOWN.parse(place.replace("{}", "x")), MARKDOWN.parse(place.replace("{}", markdown(text)))
    assert [token.type for token in found] == [token.type for token in usual]
    first = next(token for token in found if token.type == "inline")
    assert {child.type for child in first.children or ()} <= {"text", "text_special"}
    said = "".join(child.content for child in first.children or ())
    assert said.split() == plain(text).split()


@given(ANY)
def test_what_is_plain_stays(text: str) -> None:
    assert plain(plain(text)) == plain(text)


@pytest.mark.parametrize("text", ["naïve", "漢字", "שלום", "λ\u00a0= 1", "क्\u200dष", "👩\u200d🔬", "a  b"])
def test_letters_of_all_scripts_stay(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize(
    "text", ["a\nb", "a\r\nb", "a\u2028b", "a\tb", "a\x85b", "a\x0cb"], ids=["lf", "crlf", "ls", "tab", "nel", "ff"]
)
def test_ends_of_lines_become_a_space(text: str) -> None:
    assert plain(text) == "a b"


@pytest.mark.parametrize("text", ["[bold]x[/bold]", "[/]", ":bug:", "[link=http://x]y[/link]", "\x1b[31mred"])
@pytest.mark.parametrize("table", [False, True], ids=["line", "table"])
def test_the_console_reads_no_markup(text: str, table: bool) -> None:
    assert plain(text) in shown(text, table)
    assert "\x1b" not in shown(text, table)


def test_the_console_keeps_lines_and_styles() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="standard")
    console.print("a\nb", Text("c", style="bold"))
    assert out.getvalue() == "a\nb \x1b[1mc\x1b[0m\n"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("![x](y)", r"!\[x\](y)"),
        ("www.x.y http://x", r"www\.x.y http\://x"),
        ("a@b.c", r"a\@b.c"),
        ("- a", r"\- a"),
        (" - a", r" \- a"),
        ("12) a", r"12\) a"),
        ("---", r"\---"),
        ("-1.5", "-1.5"),
        ("+1.50 to 2", "+1.50 to 2"),
        ("1.5", "1.5"),
        ("a  b", "a b"),
        ("&lt;", "&amp;lt;"),
    ],
)
def test_markdown_by_example(text: str, escaped: str) -> None:
    assert markdown(text) == escaped
