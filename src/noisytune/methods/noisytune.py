"""NoisyTune: uniform noise on the pretrained weights, once, before fine-tuning.

Equation (1): W~ = W + U(-lambda/2, lambda/2) * std(W), for each parameter tensor. The noise of a run is that of its
seed. Outside the lab: `noisytune.torch.perturb_`.

With ``soup=k`` a trial trains k times, each time with other noise and all else alike, and the mean of the weights is
scored: the uniform soup of Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models improves
accuracy without increasing inference time", section 2. It costs k trainings, one after the other, and the memory of one
running mean.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from noisytune._settings import later, like, seed, whole
from noisytune.config import NoisyTuneConfig
from noisytune.errors import ConfigError
from noisytune.methods._base import Method, Run, Stage


@dataclass(frozen=True)
class NoisyTune(Method):
    """Noise before fine-tuning; section 3.3's five types are ``noise_lambda=0`` and distribution x scale.

    >>> NoisyTune(0.1, distribution="gaussian").label
    'noisytune(0.1, distribution=gaussian)'
    """

    name: ClassVar = "noisytune"
    summary: ClassVar = "Uniform noise on the pretrained weights, times each matrix's standard deviation, once"
    cost: ClassVar = "a second or less, once"
    source: ClassVar = "Wu et al. 2022, ACL"
    neutral: ClassVar = {"noise_lambda": 0.0}
    stage: ClassVar = Stage.PERTURB

    noise_lambda: float = like(NoisyTuneConfig, "noise_lambda")
    distribution: str = like(NoisyTuneConfig, "distribution")
    scale: str = like(NoisyTuneConfig, "scale")
    scope: str = like(NoisyTuneConfig, "scope")
    include: tuple[str, ...] = like(NoisyTuneConfig, "include")
    exclude: tuple[str, ...] = like(NoisyTuneConfig, "exclude")
    soup: int = later(
        whole(
            1, "train so often, each time with other noise, and score the mean of the weights", ">= 1", lambda k: k >= 1
        )
    )
    noise_seed: int | None = later(seed("draw the noise from this seed; by itself from the run's"))

    @property
    def label(self) -> str:
        """Always with its strength, which people compare."""
        parts = [repr(self.noise_lambda).removesuffix(".0")]
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if value != field.default:
                parts.append(f"{field.name}={'|'.join(value) if isinstance(value, tuple) else value}")
        return f"{self.name}({', '.join(parts)})"

    @property
    def trainings(self) -> int:
        """One, or those of a soup."""
        return self.soup

    def passes(self, epochs: float, batches: int) -> float:
        """Each training of a soup."""
        return float(self.soup)

    def check(self, run: Run) -> None:
        """Every glob must match, and some tensor be left to perturb."""
        from noisytune._perturb.refusals import NO_NOISE
        from noisytune.torch import perturb_

        # Which tensors take noise depends on neither the distribution nor the scale.
        chosen = perturb_(run.model, self.config(run.seed, run.member).replace(noise_lambda=0.0)).entries
        if all(entry.left_alone != NO_NOISE for entry in chosen):
            raise ConfigError(
                f"include {list(self.include)}, exclude {list(self.exclude)}, scope {self.scope!r}: "
                "no tensor is left to perturb"
            )

    def initialise_(self, run: Run) -> dict[str, Any]:
        """Add the noise."""
        from noisytune.torch import perturb_

        return perturb_(run.model, self.config(run.seed, run.member)).summary()

    def config(self, seed: int, member: int = 0) -> NoisyTuneConfig:
        """The noise of a run with a seed; of a soup, that of one of its trainings."""
        own = {name: value for name, value in self.settings.items() if name not in ("soup", "noise_seed")}
        first = seed if self.noise_seed is None else self.noise_seed
        # Seeds of trials lie below 2**32: no member of a soup has the noise of another trial.
        return NoisyTuneConfig.from_dict(own | {"seed": first + member * 2**32})
