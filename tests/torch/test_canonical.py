"""Names in memory and in files, and what is told where another release of transformers has others."""

import re

import pytest

transformers = pytest.importorskip("transformers", reason="names of transformers' models")

from noisytune._perturb.families import Family  # noqa: E402
from noisytune.torch import _canonical  # noqa: E402


@pytest.mark.parametrize(
    ("spelt", "held_as", "told"),
    [
        ({"bert.pooler.bias": "pooler.bias"}, {"pooler.bias": "pooler.bias"}, None),
        ({"bert.pool.bias": "pooler.bias"}, {"pooler.bias": "pooler.bias"}, r"1 tensors \(bert.pool.bias .* in files"),
        ({"bert.pooler.bias": "pooler.bias"}, {"pool.bias": "pooler.bias"}, r"1 tensors \(pool.bias .* in memory"),
    ],
)
def test_what_the_table_of_another_release_calls_otherwise_is_told(monkeypatch, tiny, spelt, held_as, told):
    monkeypatch.setattr(_canonical, "known", lambda model_type: Family(("bert",)))
    monkeypatch.setattr(_canonical, "release", lambda: "0.0.0")
    model = transformers.AutoModel.from_pretrained(tiny.path)
    notice = _canonical._of_another_release(model, spelt, held_as)
    if told is None:
        assert notice is None
    else:
        assert re.search(told, notice)
