"""The account of a perturbation: table, summary, file."""

import json
import os

import pytest
import torch

import noisytune.torch
from noisytune.config import NoisyTuneConfig
from noisytune.errors import NoisyTuneError
from noisytune.manifest import FILE_NAME, Manifest, TensorEntry


@pytest.fixture(scope="module")
def manifest():
    torch.manual_seed(0)
    layers = torch.nn.ModuleList(torch.nn.Linear(6, 6) for _ in range(3))
    return noisytune.torch.perturb_(layers, noise_lambda=0.15, seed=9, exclude="2.bias")


def test_written_and_read_back(manifest, tmp_path):
    assert manifest.write(tmp_path) == tmp_path / FILE_NAME
    assert Manifest.read(tmp_path) == manifest
    assert os.listdir(tmp_path) == [FILE_NAME]


NAMELESS = {"name": "a", "own_names": [["a"]], "shape": [2], "dtype": "float32"}
DAMAGED = [
    *(None, "", "[]", "{}", '{"entries": [{}], "config": {}, "notices": []}', "\x00", "[" * 100_000),
    json.dumps({"entries": [NAMELESS], "config": {}, "notices": [], "field_version": 1}),
]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_anything_else_is_refused_with_its_path(content, tmp_path):
    if content is not None:
        (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(NoisyTuneError, match=f"{FILE_NAME}: not a manifest of noisytune"):
        Manifest.read(tmp_path)


def test_summary_counts(manifest):
    summary = manifest.summary()
    assert (summary["perturbed"], summary["perturbed_elements"], summary["elements"]) == (5, 120, 126)
    assert summary["left_alone"] == {"excluded": 1}
    assert summary["config"]["seed"] == 9


def test_table_groups_layers_unless_told_not_to(manifest):
    grouped, every = manifest.table(), manifest.table(every_tensor=True)
    assert grouped.count("*.weight") == 1
    assert "left: excluded" in grouped
    assert all(f"{i}.weight" in every for i in range(3))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_table_fits_the_terminal(manifest, width):
    rows = manifest.table(width=width).splitlines()[1:]
    assert max(map(len, rows)) <= width


def test_names_from_strangers_are_text_and_stand_whole():
    names = ("[/red]x[bold]", "decoder.layers.0.query_key_value.weight", "\x1b]0;title\x07")
    entries = tuple(TensorEntry(name, (name,), (3, 4), "float32", 0.5, 0.075, 0.02) for name in names)
    for width in (60, 200):
        text = str(Manifest(NoisyTuneConfig(), entries, ("[/b]",)).table(every_tensor=True, width=width))
        assert {names[0], r"\x1b]0;title\x07"} <= set(text.split())
        # A long one is broken where it has a sign, in a narrow terminal.
        assert {"decoder.layers.0.query_", "key_value.weight"} <= set(text.split()) or names[1] in text.split()
        assert text.endswith("Note: [/b]")


@pytest.mark.parametrize(("columns", "width"), [(80, 80), (20, 60), (500, 200)])
def test_printed_in_the_width_of_the_terminal(manifest, monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert str(manifest) == manifest.table(width=width)
    assert max(map(len, str(manifest).splitlines())) <= width
