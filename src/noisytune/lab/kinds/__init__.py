"""What answers look like: the kinds of tasks, one file each. Nothing else in the lab asks which kind a task is of."""

from noisytune.lab.kinds.classification import Classification
from noisytune.lab.kinds.columns import Labelled, Ragged, TokenSplit
from noisytune.lab.kinds.kind import Collate, Kind
from noisytune.lab.kinds.language import Language
from noisytune.lab.kinds.multilabel import MultiLabel
from noisytune.lab.kinds.regression import Regression
from noisytune.lab.kinds.retrieval import Retrieval
from noisytune.lab.kinds.spans import Spans
from noisytune.lab.kinds.split import Split, Target
from noisytune.lab.kinds.tagging import Tagging

__all__ = ["KINDS", "Collate", "Kind", "Labelled", "Ragged", "Split", "Target", "TokenSplit"]

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (Classification(), MultiLabel(), Regression(), Tagging(), Spans(), Retrieval(), Language())
}
"""Name in records -> the kind."""
