"""Reading tables: what other libraries write is read back, what is broken is refused with its place."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisytune.errors import DataError
from noisytune.lab.tasks._labels import label_texts
from noisytune.lab.tasks._tables import read_table

cells = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), min_size=1, max_size=12)
tables = st.lists(st.tuples(cells, cells), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@settings(max_examples=50)
@given(tables)
def test_csv_written_by_python_is_read_back(folder, rows):
    text = io.StringIO()
    csv.writer(text).writerows([("text", "label"), *rows])
    table = read_table(write(folder / "t.csv", text.getvalue()))
    assert table.columns == {"text": [a for a, _ in rows], "label": [b for _, b in rows]}


@settings(max_examples=50)
@given(tables)
def test_jsonl_written_by_python_is_read_back(folder, rows):
    text = "\n".join(json.dumps({"text": a, "label": b}) for a, b in rows)
    assert read_table(write(folder / "t.jsonl", text)).columns["text"] == [a for a, _ in rows]


@settings(max_examples=50)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters='\r\n\t\x00"'), min_size=1), min_size=1))
def test_tsv_without_quoting_keeps_every_text_that_has_a_stray_quote(folder, texts):
    rows = ['say "hi', *(text + '"' for text in texts)]
    table = read_table(write(folder / "t.tsv", "text\tlabel\n" + "".join(f"{text}\t1\n" for text in rows)))
    assert table.columns["text"] == rows


def test_tsv_with_standard_quoting_is_read_by_it(folder):
    table = read_table(write(folder / "t.tsv", 'text\tlabel\n"a ""tab""\there"\tx\n"two\nlines"\ty\n'))
    assert table.columns == {"text": ['a "tab"\there', "two\nlines"], "label": ["x", "y"]}
    assert table.notices == ()


def test_tsv_whose_stray_quotes_happen_to_pair_up_loses_no_row(folder):
    # Read by the standard this is one well-formed row that swallows the next.
    table = read_table(write(folder / "t.tsv", 'id\ttext\tlabel\n1\t"He said\t0\n2\tshe said"\t1\n'))
    assert table.columns["text"] == ['"He said', 'she said"']
    (notice,) = table.notices
    assert "plain characters" in notice


@pytest.mark.parametrize("suffix", [".parquet", ".pq"])
def test_parquet_written_by_pandas_is_read_back(folder, suffix):
    frame = pd.DataFrame({"text": ["a", None], "score": [1.5, 2.0], "flag": [True, False]})
    frame.to_parquet(folder / f"t{suffix}")
    table = read_table(folder / f"t{suffix}")
    assert table.columns == {"text": ["a", None], "score": [1.5, 2.0], "flag": [True, False]}


def test_bom_line_ends_blank_lines_and_empty_cells(folder):
    text = "\ufefftext,label\r\n\r\na,\r\nNA,1\r\n"
    assert read_table(write(folder / "t.csv", text)).columns == {"text": ["a", "NA"], "label": [None, "1"]}


@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".csv", ";"), (".tsv", "\t")])
@pytest.mark.parametrize("blank", [" ", "  \r", "\u00a0"])
def test_lines_of_blanks_are_no_rows(folder, suffix, separator, blank):
    lines = [blank, separator.join(("text", "label")), separator.join(("a b", "1")), blank, separator.join(("c", "2"))]
    for end in ("", "\n", f"\n{blank}", f"\n{blank}\n"):
        table = read_table(write(folder / f"t{suffix}", "\n".join(lines) + end))
        assert table.columns == {"text": ["a b", "c"], "label": ["1", "2"]}


@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t")])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_cell_may_be_longer_than_the_csv_module_allows(folder, suffix, separator, quote):
    before = csv.field_size_limit()
    text = "word " * before
    cells = [separator.join(("text", "label")), separator.join((quote + text + quote, "1"))]
    table = read_table(write(folder / f"t{suffix}", "\n".join(cells)))
    assert table.columns == {"text": [text], "label": ["1"]}
    assert table.notices == ()
    assert csv.field_size_limit() == before


def test_the_csv_modules_limit_is_put_back_after_an_error(folder):
    before = csv.field_size_limit()
    with pytest.raises(DataError):
        read_table(write(folder / "t.csv", 'a,b\n1,"2' + "x" * before))
    assert csv.field_size_limit() == before


def test_semicolons_are_noticed(folder):
    table = read_table(write(folder / "t.csv", "text;label\nwell, yes;1\n"))
    assert table.columns["text"] == ["well, yes"]
    assert "semicolons" in table.notices[0]


def test_columns_by_number_mean_no_header_unless_the_header_holds_them(folder):
    table = read_table(write(folder / "t.tsv", "gj04\t1\tA text\n"), ("2", "1"))
    assert table.columns == {"0": ["gj04"], "1": ["1"], "2": ["A text"]}
    assert "first line is read as an example" in table.notices[0]
    named = read_table(write(folder / "t.csv", "0,1\na,b\n"), ("0", "1"))
    assert named.columns == {"0": ["a"], "1": ["b"]}


def test_a_key_that_some_lines_lack_is_empty(folder):
    table = read_table(write(folder / "t.jsonl", '{"text": "a"}\n\n{"text": "b", "label": 1}\n'))
    assert table.columns == {"text": ["a", "b"], "label": [None, 1]}


BROKEN = {
    "ragged.csv": ("a,b\n1,2\n1,2,3\n", "line 3 has 3 cells, line 1 has 2"),
    "open.csv": ('a,b\n1,"2\n', "line 2"),
    "after.csv": ('a,b\n1,"2"x\n', "line 2"),
    "ragged.tsv": ("a\tb\n1\n", "line 2 has 1 cells"),
    "header.csv": ("a,b\n", "no rows"),
    "empty.csv": ("", "no rows"),
    "empty.tsv": ("", "no rows"),
    "empty.jsonl": ("\n", "no rows"),
    "twice.csv": ("a,a\n1,2\n", "two columns are called 'a'"),
    "word.jsonl": ('{"a": 1}\nnope\n', "line 2 is not JSON"),
    "list.jsonl": ("[1]\n", "item 1 of the list is not a JSON object but a int"),
    "half.jsonl": ('{"a": "\\ud800"}\n', "line 1 is not JSON"),
    "t.parquet": ("no parquet", "not a Parquet file"),
    "t.xlsx": ("x", "unknown kind of file '.xlsx'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named_in_one_line(folder, name):
    text, message = BROKEN[name]
    with pytest.raises(DataError) as caught:
        read_table(write(folder / name, text))
    assert str(folder / name) in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_not_utf8_names_the_byte(folder):
    with pytest.raises(DataError, match=r"not UTF-8.*0xe9 at position 13"):
        read_table(write(folder / "latin.csv", "text,label\nna\xe9,1\n", "latin-1"))


def test_a_missing_file_and_a_folder(folder):
    with pytest.raises(DataError, match="No such file"):
        read_table(folder / "nowhere.csv")
    (folder / "folder.parquet").mkdir()
    with pytest.raises(DataError, match="Is a directory"):
        read_table(folder / "folder.parquet")


ROWS = {"text": ["naïve, yes", "b"], "label": ["1", "0"]}
CSV = 'text,label\n"naïve, yes",1\nb,0\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv.gz", gzip.compress(CSV.encode())),
        ("t.csv.bz2", bz2.compress(CSV.encode())),
        ("t.csv.xz", lzma.compress(CSV.encode())),
        ("no-suffix.csv", gzip.compress(CSV.encode())),
        ("mark.csv", CSV.encode("utf-16")),
        ("le.csv", CSV.encode("utf-16-le")),
        ("be.csv", CSV.encode("utf-16-be")),
        ("le-mark.csv", b"\xff\xfe" + CSV.encode("utf-16-le")),
        ("utf32.csv", CSV.encode("utf-32")),
        ("t.csv", b"\xef\xbb\xbf" + CSV.encode()),
        ("told.csv", "sep=;\r\ntext;label\r\nnaïve, yes;1\r\nb;0\r\n".encode()),
        ("told-comma.csv", ("sep=,\n" + CSV).encode()),
        ("semicolons.csv", 'text;"label"\nnaïve, yes;1\nb;0\n'.encode()),
        ("semicolons in commas.csv", CSV.replace("b,", '"b",').encode()),
        ("tabs.csv", "text\tlabel\nnaïve, yes\t1\nb\t0\n".encode()),
        ("list.json", json.dumps([{"text": "naïve, yes", "label": "1"}, {"text": "b", "label": "0"}]).encode()),
        (
            "list.jsonl",
            json.dumps([{"text": "naïve, yes", "label": "1"}, {"text": "b", "label": "0"}], indent=1).encode(),
        ),
        ("lines.json", b'{"text": "na\\u00efve, yes", "label": "1"}\n{"text": "b", "label": "0"}\n'),
        (
            "inner.json",
            json.dumps(
                {"version": "1", "data": [{"text": t, "label": y} for t, y in zip(*ROWS.values(), strict=True)]}
            ).encode(),
        ),
        ("columns.json", json.dumps(ROWS).encode()),
        ("columns.jsonl", json.dumps(ROWS, indent=2).encode()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_can_be_read_is_read(folder, name, content):
    (folder / name).write_bytes(content)
    assert read_table(folder / name).columns == ROWS


def test_a_semicolon_in_a_header_with_commas_is_no_separator(folder):
    table = read_table(write(folder / "t.csv", "text;x,label\na;b,1\n"))
    assert table.columns == {"text;x": ["a;b"], "label": ["1"]}
    european = read_table(write(folder / "t.csv", "text;label, gold\na, b, c;1\nd;0\n"))
    assert european.columns == {"text": ["a, b, c", "d"], "label, gold": ["1", "0"]}


def test_numbers_of_json_are_as_they_are_written(folder):
    lines = '{"text": 1.10, "label": 1.10}\n{"text": 2, "label": 12345678901234567890}\n{"text": "c", "label": 1.0}\n'
    table = read_table(write(folder / "t.jsonl", lines))
    assert list(map(str, table.columns["text"])) == ["1.10", "2", "c"]
    assert label_texts(table.columns["label"]) == ["1.10", "12345678901234567890", "1"]


STRANGE = {
    "pointer.csv": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "a Git LFS pointer.*git lfs pull",
    ),
    "pointer.parquet": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a Git LFS pointer"),
    "book.csv": (b"PK\x03\x04xx", "ZIP archive.*save the sheet as CSV"),
    "page.csv": (b"\n<!doctype html><html></html>", "a web page, not data"),
    "none.csv": (b"", "an empty file"),
    "none.parquet": (b"", "an empty file"),
    "none.csv.gz": (gzip.compress(b""), "an empty file"),
    "short.csv.gz": (gzip.compress(CSV.encode())[:-9], "compressed data are damaged"),
    "nul.csv": (b"text,label\na,1\nb\0b,1\n", "line 3 holds a NUL"),
    "nul.jsonl": (b'{"a": 1}\n\0\0\0\n', "line 2 holds a NUL"),
    "utf16.csv": (b"\xff\xfe" + CSV.encode("utf-16-le")[:-1], "not UTF-16"),
    "words.json": (b'["a", "b"]', "item 1 of the list is not a JSON object but a str"),
    "half.json": (b'[{"a": 1},', "not JSON"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_a_file_is_instead_is_said_in_one_line(folder, name):
    content, message = STRANGE[name]
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_table(folder / name)
    assert str(folder / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pipe_is_refused_before_it_blocks(folder):
    os.mkfifo(folder / "pipe.csv")
    with pytest.raises(DataError, match="a pipe or a device"):
        read_table(folder / "pipe.csv")


@settings(max_examples=50)
@given(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]), tables)
def test_every_encoding_that_shows_itself_gives_the_same_table(folder, encoding, rows):
    text = io.StringIO()
    csv.writer(text).writerows([("text", "label"), *rows])
    path = write(folder / "t.csv", text.getvalue(), encoding)
    if encoding in ("utf-16-le", "utf-16-be") and 0 in text.getvalue().encode("utf-16-le")[::2]:
        return  # a zero in the other byte too: without a mark nobody can tell
    assert read_table(path).columns == {"text": [a for a, _ in rows], "label": [b for _, b in rows]}
