"""What stands on the page about the search for the arms' settings?"""

from __future__ import annotations

import math
from typing import Any

from noisytune.report.evidence.pairs import Evidence
from noisytune.report.evidence.search import gain_by_chance, search_rows, seed_spread
from noisytune.report.page import downloads, figures
from noisytune.report.page.cards import Card, Panel
from noisytune.report.page.wording import chosen_by, count, settings_text
from noisytune.report.statistics.power import selection_bias


def search_view(evidence: Evidence, *, drawn: bool) -> dict[str, Any] | None:
    """What stands there of the search for the arms' settings; None where there was none."""
    search, rows = evidence.study.search, search_rows(evidence)
    if not search:
        return None
    card, spread = None, seed_spread(rows)
    if drawn:
        where = "held-out training examples" if search["protocol"] == "clean" else "dev"
        caption = (
            f"Dots: trials of the search, scored on {where}; lines: the best so far; large dots: the winners. "
            "Diamonds: the winners with fresh seeds, mean ± standard deviation, scored on dev."
        )
        figure = figures.search_progress(rows, evidence.study.tasks[0]["metric_label"])
        card = Card("The search, trial by trial", caption, (Panel("", figure),), downloads.of_search(rows))
    return {
        "sentence": chosen_by(search),
        "card": card,
        "rows": rows,
        "budget": search["budget"],
        "space": search["space"],
        "bias": selection_bias(search["budget"]),
        "spread": spread,
        "known": not math.isnan(spread),
        "gain": gain_by_chance(rows, search["budget"]),
        "settings": settings_text,
        "count": count,
    }
