"""NoisyTune from directory to directory: the same noise as in memory, without torch and in bounded memory.

``perturb_checkpoint("bert-base", "noisy", noise_lambda=0.15, seed=1)`` writes a checkpoint that ``from_pretrained``
loads as it does the first one. It equals, bit for bit, what `noisytune.torch.perturb_` makes of the loaded model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from noisytune._perturb.receipt import carries
from noisytune._perturb.steps import settled
from noisytune.checkpoint._diff import Difference, diff
from noisytune.checkpoint._folder import check_new, check_space, new_folder
from noisytune.checkpoint._four_bits import Codes, quantise_, refuse_four_bits
from noisytune.checkpoint._job import Job, Progress
from noisytune.checkpoint._source import open_source
from noisytune.checkpoint._verify import Verification, verify
from noisytune.checkpoint._write import bytes_needed, write_checkpoint
from noisytune.config import NoiseSettings, NoisyTuneConfig
from noisytune.errors import AlreadyPerturbedError
from noisytune.manifest import Manifest


def perturb_checkpoint(
    source: str | Path,
    out: str | Path,
    config: NoisyTuneConfig | None = None,
    *,
    again: bool = False,
    dry_run: bool = False,
    quantize: Codes | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
    **settings: Unpack[NoiseSettings],
) -> Manifest:
    r"""Write a checkpoint's copy with noise: W + U(-lambda/2, lambda/2) * std(W), equation (1) of the paper.

    ``out`` is whole or absent at any moment, and after any error it is absent. Names, order, offsets
    and metadata of the weights stay; all other files are carried along. The noise is computed in float32 and rounded
    once to the stored dtype.

    Args:
        source: directory with ``model.safetensors``, shards and their index, or ``pytorch_model.bin``, which is read
        without running code (needs torch) and written as safetensors.
        out: new or empty directory, not inside ``source``.
        config: the settings; or give them by name instead.
        again: perturb even though the weights carry noise already. The receipt then records both.
        dry_run: measure and report, but write nothing.
        quantize: ``"nf4"``: write linear layers in four bits after the noise, as QLoRA wants them. Needs the extra
        ``quantize``, and memory for the model. The noise can then not be verified.
        progress: called with the bytes done and the bytes in total.
        threads: how many; None takes one for each core. Changes nothing in the result.
        **settings: fields of `NoisyTuneConfig`: noise_lambda, seed, distribution, scale, scope, include, exclude.

    Returns:
        what was done to which tensor; ``out`` has it as ``noisytune.json``.

    Raises:
        ConfigError: a setting is out of range, or a glob matches no tensor.
        AlreadyPerturbedError: the weights carry noise.
        DataError: a damaged or incomplete checkpoint, or an ``out`` that cannot be written.
        UnsupportedTensorError: quantised weights. NonFiniteError: NaN or infinity, or noise that could overflow.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import safetensors.numpy
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "clean").mkdir()
        >>> weights = {"encoder.weight": np.linspace(-1, 1, 8, dtype=np.float32)}
        >>> safetensors.numpy.save_file(weights, folder / "clean" / "model.safetensors")
        >>> manifest = perturb_checkpoint(folder / "clean", folder / "noisy", noise_lambda=0.15, seed=1)
        >>> [entry.name for entry in manifest.perturbed], verify_checkpoint(folder / "noisy").ok
        (['encoder.weight'], True)

    Source: Wu et al. 2022, equation (1) and section 3.3.
    """
    config = settled(config, settings)
    source, out = Path(source).expanduser(), Path(out)
    with open_source(source) as opened:
        earlier = opened.earlier
        if earlier and not again:
            raise AlreadyPerturbedError(
                f"{source}: {carries(earlier)}: perturb the clean checkpoint, or say again=True"
            )
        place = check_new(out, source)
        if quantize:
            refuse_four_bits(opened, quantize)
        check_space(place, bytes_needed(opened) * (2 if quantize else 1))
        job = Job(opened, config, threads, progress)
        if dry_run:
            job.run()
            return job.manifest()
        with new_folder(place) as (folder, notice):
            manifest = write_checkpoint(job, folder, earlier)
            if quantize:
                quantise_(folder, quantize)
        return manifest.with_notices(notice) if notice else manifest


def inspect_checkpoint(
    source: str | Path,
    config: NoisyTuneConfig | None = None,
    *,
    progress: Progress | None = None,
    threads: int | None = None,
    **settings: Unpack[NoiseSettings],
) -> Manifest:
    """What noise would do to a checkpoint: each tensor's shape, dtype, standard deviation and scale. Writes nothing.

    Args:
        source: as for `perturb_checkpoint`; weights that carry noise already are no error here.
        config: the settings; or give them by name instead.
        progress: called with the bytes done and the bytes in total.
        threads: how many; None takes one for each core.
        **settings: fields of `NoisyTuneConfig`.

    Raises:
        NoisyTuneError: as `perturb_checkpoint`.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import safetensors.numpy
        >>> folder = Path(tempfile.mkdtemp())
        >>> safetensors.numpy.save_file({"weight": np.arange(6, dtype=np.float32)}, folder / "model.safetensors")
        >>> [(entry.name, entry.shape, round(entry.std, 2)) for entry in inspect_checkpoint(folder).entries]
        [('weight', (6,), 1.87)]
    """
    with open_source(Path(source).expanduser()) as opened:
        job = Job(opened, settled(config, settings), threads, progress)
        job.run()
        return job.manifest()


def verify_checkpoint(
    out: str | Path,
    against: str | Path | None = None,
    *,
    every_file: bool = False,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Verification:
    """Is a perturbed checkpoint, bit for bit, the clean one plus the noise that its manifest states?

    Args:
        out: what `perturb_checkpoint` wrote.
        against: the clean checkpoint; the noise is then computed again, and every byte of the weights compared. None
        compares with the hashes in the manifest: it finds damage, and does not prove the noise.
        every_file: compare the files beside the weights with their hashes too: tokenizer, configuration, card ...
        progress: called with the bytes done and the bytes in total.
        threads: how many; None takes one for each core.

    Raises:
        DataError: ``out`` or ``against`` is damaged beyond comparing, or ``out`` has no manifest, or one without
        hashes of files.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import safetensors.numpy
        >>> clean = Path(tempfile.mkdtemp())
        >>> safetensors.numpy.save_file({"weight": np.arange(6, dtype=np.float32)}, clean / "model.safetensors")
        >>> noisy = Path(tempfile.mkdtemp()) / "noisy"
        >>> _ = perturb_checkpoint(clean, noisy, noise_lambda=0.15, seed=1)
        >>> found = verify_checkpoint(noisy, clean)
        >>> found.ok, found.tensors, found.problems
        (True, 1, ())
    """
    clean = None if against is None else Path(against).expanduser()
    return verify(Path(out).expanduser(), clean, every_file, progress, threads)


def diff_checkpoints(
    first: str | Path,
    second: str | Path,
    *,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Difference:
    """How much the parameters of each role differ between two checkpoints: ``sum |B - A| / sum |A|``, as in figure 5.

    Tensors are matched by canonical name, so one checkpoint may have a head, shards or another floating dtype.

    Args:
        first: the checkpoint A that changes are relative to.
        second: the checkpoint B, such as A after perturbing or fine-tuning.
        progress: called with the bytes done and the bytes in total.
        threads: how many; None takes one for each core.

    Raises:
        DataError: a damaged checkpoint, or two that have no tensor in common.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import safetensors.numpy
        >>> clean, twice = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp())
        >>> weight = np.arange(6, dtype=np.float32)
        >>> safetensors.numpy.save_file({"pooler.dense.weight": weight}, clean / "model.safetensors")
        >>> safetensors.numpy.save_file({"pooler.dense.weight": 2 * weight}, twice / "model.safetensors")
        >>> [(role.name, role.relative) for role in diff_checkpoints(clean, twice).roles()]
        [('pooler', 1.0)]

    Source: Wu et al. 2022, section 3.5 and figure 5, for the question; the paper does not say which ratio it draws.
    """
    return diff(Path(first).expanduser(), Path(second).expanduser(), progress, threads)
