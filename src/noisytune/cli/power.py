"""The command power: pairs and cost before the first run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from noisytune._text import terminal
from noisytune.cli._options import WHAT, Json, Margin, finite, option
from noisytune.cli._output import console, print_json
from noisytune.cli.cost_display import duration
from noisytune.errors import ConfigError, require

if TYPE_CHECKING:
    from noisytune.report.evidence.pilot import Pilot
    from noisytune.report.statistics.planning import Plan


def power(
    effect: Annotated[
        float | None,
        option(WHAT, "The difference to be found. Default with --from: what the pilot saw.", "POINTS", callback=finite),
    ] = None,
    sd: Annotated[
        float | None, option(WHAT, "Standard deviation of the paired differences.", "POINTS", callback=finite)
    ] = None,
    from_: Annotated[
        Path | None, option(WHAT, "Take the spread, and what a trial takes, from this run folder.", "RUN", "--from")
    ] = None,
    share: Annotated[float, option(WHAT, "The share of such studies that are to find it.", "SHARE", "--power")] = 0.8,
    arms: Annotated[
        int | None, option(WHAT, "Comparisons judged at once. Default: 1, or the pilot's.", "N", min=1)
    ] = None,
    margin: Margin = 1.0,
    max_seeds: Annotated[int, option(WHAT, "Where --until-decided stops at the latest.", "N", min=1, max=2000)] = 50,
    as_json: Json = False,
) -> None:
    """Say how many pairs a difference takes: looked at once, looked at after every pair, and with --until-decided.

    For normal differences; the anytime-valid numbers are simulated. With --from also the time.

    Examples:
        noisytune power --sd 1.2 --effect 0.5
        noisytune power --from runs/pilot --effect 0.5
    """
    require("scipy", extra="report", needed_for="noisytune power")
    from noisytune.report.statistics.planning import plan

    known = _pilot(from_) if from_ else None
    effect = known.difference if effect is None and known else effect
    spread = known.sd if sd is None and known else sd
    if effect is None or spread is None:
        raise ConfigError(
            f"{'effect' if effect is None else 'sd'} must be given, in points, or a pilot with --from RUN"
        )
    at_once = arms or (known.comparisons if known else 1)
    how: dict[str, Any] = {"margin": margin, "most": max_seeds, "comparisons": at_once}
    found = plan(effect, spread, share, **how)
    if as_json:
        told = {"effect": effect, "sd": spread, "power": share, **how}
        print_json("power", told | asdict(found) | {"pilot": known and asdict(known)})
        return
    out = console()
    for line in _lines(found, effect, spread, share, margin, at_once, known):
        out.print(terminal(line), soft_wrap=True)
    if known and sd is None:
        wider = plan(effect, known.sd_high, share, **how)
        out.print(
            terminal(
                f"Note: {known.pairs} pairs know their spread roughly. It may well be {known.sd_high:.2f} points "
                f"(upper end of an 80 % interval): then {_pairs(wider.anytime)}."
            ),
            soft_wrap=True,
        )


def _pilot(run: Path) -> Pilot:
    from noisytune.lab.studies.export import read_run
    from noisytune.report.evidence.pilot import pilot

    found = read_run(run)
    if len(found) > 1:
        raise ConfigError(f"{run} holds {len(found)} studies: give --sd instead")
    study, records, _ = found[0]
    return pilot(study, records)


def _lines(
    found: Plan, effect: float, sd: float, share: float, margin: float, at_once: int, known: Pilot | None
) -> list[str]:
    shares = ", ".join(f"{word} {of:.0%}" for word, of in found.stops.shares.items() if of >= 0.005)
    beside = f", {at_once} comparisons at once" if at_once > 1 else ""
    waits = known.waits_for if known else 1
    until = (
        f"one comparison, where --until-decided waits for {waits} (each arm on each task), at most {found.stops.most}"
        if waits > 1
        else f"--until-decided --max-seeds {found.stops.most}"
    )
    lines = [
        f"A difference of {effect:+g} points at a standard deviation of {sd:.3g} ({effect / sd:+.2f} of it){beside}:",
        f"  looked at once: {_pairs(found.fixed)} find it in {share:.0%} of studies (paired t test)",
        f"  looked at after every pair: {_pairs(found.anytime)} find it in {share:.0%} of studies (e)",
        f"  {until} --margin {margin:g}: stops after {found.stops.mean:.0f} "
        f"pairs on average, half of the studies by {found.stops.median:.0f}: {shares}",
    ]
    if known and known.seconds:
        each = known.trials * known.seconds
        parts = [("until decided", found.stops.mean)] + [
            (f"{pairs:,} pairs", float(pairs)) for pairs in (found.fixed, found.anytime) if pairs
        ]
        times = ", ".join(f"{what} {duration(pairs * each)}" for what, pairs in parts)
        lines.append(
            f"  time: {times}, of one worker ({known.trials} trials a seed, {duration(known.seconds)} each, as in the "
            "pilot); GPU hours where a worker has a GPU"
        )
    if known and effect == known.difference:
        lines.append(
            "Note: the difference that a pilot has seen is uncertain, and too large where it is why one goes on: give "
            "--effect, the smallest that matters."
        )
    return lines


def _pairs(number: int | None) -> str:
    return "more than 2,000 pairs" if number is None else f"{number:,} pairs"
