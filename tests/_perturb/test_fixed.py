"""The list of tensors that are never learnt is compared with the classes of transformers, type by type."""

import pytest
from sweep.configs import tiny_config
from sweep.models import classes

from noisytune._perturb.doubtful import is_sinusoidal
from noisytune._perturb.fixed import FIXED, fixed_globs
from noisytune._perturb.names import match


@pytest.mark.parametrize("model_type", FIXED)
def test_the_list_is_what_the_code_keeps_from_training(model_type):
    config = tiny_config(model_type)
    config.use_positional_encoding = True  # of the types that have the setting
    if where := FIXED[model_type].where:
        assert not list(fixed_globs(config.to_dict() | {where[0]: None}))
        setattr(config, *where)
    globs = tuple(fixed_globs(config.to_dict()))
    for model_class in classes(model_type, config)[:2]:
        model = model_class._from_config(config)
        parameters = dict(model.named_parameters())
        kept = {name for name, p in parameters.items() if (not p.requires_grad and p.numel() > 1) or is_table(p)}
        kept |= {f"{name}.weight" for name, part in model.named_modules() if "Sinusoidal" in type(part).__name__}
        assert kept
        assert kept == {name for name in parameters if match([name], globs)}


def is_table(parameter):
    """Of sines and cosines."""
    return parameter.dim() == 2 and len(parameter) > 1 and is_sinusoidal(parameter[:2].detach().numpy())
