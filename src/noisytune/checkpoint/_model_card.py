"""What a perturbed checkpoint says about itself in its README.md."""

from __future__ import annotations

from noisytune import __version__
from noisytune.config import NoisyTuneConfig
from noisytune.manifest import FILE_NAME, Manifest

_BEGIN, _END = "<!-- noisytune: begin -->", "<!-- noisytune: end -->"


def recipe(config: NoisyTuneConfig) -> str:
    """Which noise, in a sentence for a model card."""
    only = "".join(
        f" Only tensors that match {', '.join(f'`{glob}`' for glob in globs)} {verb}."
        for globs, verb in ((config.include, "were considered"), (config.exclude, "were left out"))
        if globs
    )
    return (
        f"W + U(-λ/2, λ/2) · std(W), λ = {config.noise_lambda:g}, {config.distribution}, {config.scale} scale, "
        f"seed {config.seed}\n([NoisyTune, ACL 2022](https://aclanthology.org/2022.acl-short.76/)).{only}"
    )


def with_section(card: str, name: str, digest: str, manifest: Manifest) -> str:
    """The card with a section at its end; one that an earlier perturbation wrote stays before it.

    Args:
        card: the source's card; may be empty.
        name: of the source.
        digest: of the source's tensors.
        manifest: what was done.
    """
    section = f"""{_BEGIN}
## Perturbed with NoisyTune

The weights are those of `{name}` plus a little noise, meant to be fine-tuned:
{recipe(manifest.config)}

- {len(manifest.perturbed)} of {len(manifest.entries)} tensors are perturbed; `{FILE_NAME}` lists them.
- Digest of the clean tensors: `{digest[:16]}`.
- Written by noisytune {__version__}. Check it with `noisytune verify THIS --against CLEAN`.
{_END}
"""
    return f"{card.rstrip()}\n\n{section}".lstrip()
