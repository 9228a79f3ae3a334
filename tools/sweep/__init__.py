"""Every model type of transformers, tiny: whether the noise is the same in memory and on disk for all of them.

``python -m sweep`` runs it, ``python -m sweep bert llama`` for some types only. Tests take models from here:

    from sweep.configs import tiny_config
    from sweep.models import build, classes

    config = tiny_config("mixtral")                    # two layers, four experts, narrow
    base, *heads = classes("mixtral", config)          # MixtralModel, then those with a head
    model = build(base, config)                        # values of other sizes in each tensor, row and expert

Nothing is loaded from anywhere: the configurations are those of the classes themselves, made small by rule.
"""
