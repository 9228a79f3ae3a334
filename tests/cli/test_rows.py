"""Tables at any width: no number is broken or cut, no line sticks out."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from noisytune._console import Console
from noisytune.checkpoint._diff import Change, Difference
from noisytune.cli._rows import print_rows
from noisytune.cli.checkpoint_display import print_difference
from noisytune.cli.cost_display import print_costs
from noisytune.lab.studies.cost import Cost, TaskCost

NUMBERS = ("12,345", "9*", "-131.75..+123.00", "88.4 (88.2/88.6)", "4/1/4")


@pytest.mark.parametrize("width", [60, 72, 80, 100, 120, 200])
@pytest.mark.parametrize("longest", [5, 30, 90])
@pytest.mark.parametrize("names", [1, 2])
def test_numbers_stay_whole(width: int, longest: int, names: int) -> None:
    named = [("task/" + "x" * longest, "arm [bold]\x1b" + "y" * longest)[:names], ("b", "c")[:names]]
    headings = [*("task", "arm")[:names], *(f"{'heading' * (longest // 30)} {i}" for i in range(len(NUMBERS)))]
    out = io.StringIO()
    print_rows(Console(file=out, width=width), headings, [(*name, *NUMBERS) for name in named])
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert all(sum(number in line for line in lines) == 2 for number in NUMBERS)
    assert "…" not in out.getvalue()
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_costs_stay_whole(width: int) -> None:
    tasks = tuple(
        TaskCost(name, {"plain": 5, "noisytune": 5}, 12_345_678.0, 3.4e17, 8e5) for name in ("glue/mnli", "t")
    )
    out = io.StringIO()
    print_costs(Console(file=out, width=width), "mine", Path("runs/mine"), [Cost("bert", 85_000_000, tasks, 0, 2)])
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert sum("12,345,678" in line for line in lines) == 2
    assert any("246,913,560" in line for line in lines)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_bars_leave_numbers_their_room(width: int) -> None:
    changes = {"query": 0.0, "key": 12.5}
    tensors = tuple(Change(f"layer.0.{name}.weight", 1, 10**9, moved, 100.0) for name, moved in changes.items())
    out = io.StringIO()
    print_difference(Console(file=out, width=width), Difference(tensors, (), ()))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert any("1,000,000,000  12.5000%  ███" in line for line in lines)
    assert any("2,000,000,000   6.2500%" in line for line in lines)
