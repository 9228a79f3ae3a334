"""Settings are validated once and survive a round trip."""

import json

import numpy as np
import pytest

from noisytune.config import NoisyTuneConfig
from noisytune.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_lambda": -0.1}, "noise_lambda must be a finite number >= 0, got -0.1"),
        ({"noise_lambda": float("nan")}, "got nan"),
        ({"noise_lambda": float("inf")}, "got inf"),
        ({"noise_lambda": "much"}, "got 'much'"),
        ({"noise_lambda": True}, "got True"),
        ({"noise_lambda": None}, "got None"),
        ({"seed": -1}, "0 <= seed < 2"),
        ({"seed": 2**64}, "0 <= seed < 2"),
        ({"seed": 1.5}, "got 1.5"),
        ({"distribution": "normal"}, "distribution must be uniform or gaussian, got 'normal'"),
        ({"scale": "row"}, "scale must be matrix or global, got 'row'"),
        ({"scope": "head"}, "scope must be"),
        ({"include": [1]}, "include must be globs"),
        ({"exclude": ("",)}, "exclude must be globs"),
        ({"exclude": "*.bias|@tokens"}, "globs or roles .@token_embeddings, .* got '.*@tokens'"),
        ({"include": ["@Token_Embeddings"]}, "roles .@token_embeddings, "),
    ],
)
def test_bad_settings_are_refused_with_words(settings, message):
    with pytest.raises(ConfigError, match=message):
        NoisyTuneConfig(**settings)


def test_unknown_setting_names_the_nearest():
    with pytest.raises(ConfigError, match="unknown setting 'noise_lamda': did you mean 'noise_lambda'"):
        NoisyTuneConfig.from_dict({"noise_lamda": 0.1})


def test_round_trip_through_json():
    config = NoisyTuneConfig(noise_lambda=0.1, seed=2**64 - 1, distribution="gaussian", exclude=("*.bias",))
    assert NoisyTuneConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_values_are_normalised():
    config = NoisyTuneConfig(noise_lambda=np.float32(0.5), seed=np.int64(3), include="*.weight", exclude=["*.bias"])
    assert (config.noise_lambda, config.seed, config.include, config.exclude) == (0.5, 3, ("*.weight",), ("*.bias",))
    assert type(config.seed) is int
    assert NoisyTuneConfig(noise_lambda=1) == NoisyTuneConfig(noise_lambda=1.0)
