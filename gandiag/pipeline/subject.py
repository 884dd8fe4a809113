"""Opens what is audited: a generator, or a set of samples."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from gandiag.checkpoints.batchnorm.latent_scale import TrainedScale, estimate_trained_scale
from gandiag.checkpoints.batchnorm.moments import prior_std
from gandiag.checkpoints.folders import is_checkpoint_folder
from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.checkpoints.loader import load_generator, wrap_module
from gandiag.config import AuditConfig
from gandiag.interfaces import Assumption, Batch, OutputSpec, SampleSource
from gandiag.sampling.preprocessing import DEFAULT_RANGE
from gandiag.sampling.sample_function import SampleFunction, draw_samples, is_sample_function, name_function
from gandiag.sampling.sampler import Sampler
from gandiag.sampling.shards import WHOLE, Shard
from gandiag.sampling.sources import (
    SampleSet,
    contains_samples,
    cut_batches,
    generate_parts,
    open_samples,
)
from gandiag.sampling.stream_names import GENERATED_ORDER


@dataclass(frozen=True, slots=True)
class AuditSubject:
    """A generator or a set of samples, and what the record states about it.

    `trained_scale`: the latent scale that the generator was trained at, in units of its prior; None where it is
    unknown.
    """

    output: OutputSpec
    sampler: Sampler | None = None
    samples: SampleSet | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    assumptions: tuple[Assumption, ...] = ()
    notes: tuple[Any, ...] = ()
    trained_scale: TrainedScale | None = None

    @property
    def classes(self) -> int | None:
        """Number of classes; None for unconditional generators and unlabeled samples."""
        if self.sampler is not None:
            return self.sampler.classes
        return len(self.samples.class_names or ()) or None if self.samples is not None else None

    def available_samples(self, requested: int) -> int:
        """`requested` for a generator, at most the size of the set for samples."""
        return requested if self.samples is None else min(requested, self.samples.n)

    def batches(
        self,
        source: SampleSource,
        batch_size: int,
        *,
        seed: int = 0,
        only_class: int | None = None,
        shard: Shard = WHOLE,
    ) -> Iterator[Batch]:
        """The batches of one source: indices 0 … n-1, samples in the output's range. `shard`: only its batches."""
        if self.sampler is not None:
            parts = shard.choose(cut_batches(source, source.n, batch_size))
            return generate_parts(self.sampler, source, parts, seed=seed, only_class=only_class)
        assert self.samples is not None
        chosen = self.samples.choose(source.n)
        return self.samples.read_rows(shard.choose_rows(chosen, batch_size), batch_size, self.output)


def open_subject(x: Any, config: AuditConfig, *, n_real: int | None = None) -> AuditSubject:
    """Open a path, Sampler, LoadedGenerator, nn.Module, function fn(n, seed), array, tensor or Dataset.

    `n_real`: the number of real samples where it is known; a function is asked for no more than half as many.

    LoadError or SourceError where that fails.
    """
    if isinstance(x, AuditSubject):
        return x
    if isinstance(x, (str, os.PathLike)) and not is_sample_path(Path(x)):
        return _open_generator(load_generator(x, config), config)
    if isinstance(x, Sampler):
        known = x.generator
        return _describe_sampler(x, estimate_trained_scale(known) if isinstance(known, LoadedGenerator) else None)
    if isinstance(x, LoadedGenerator):
        return _open_generator(x, config)
    if isinstance(x, nn.Module):
        return _open_generator(wrap_module(x, config), config)
    if is_sample_function(x):
        return _open_function(x, config, n_real)
    return _open_sample_set(x, config)


def is_sample_path(path: Path) -> bool:
    """Whether a path contains samples, not weights: a folder, or a file of images or arrays by its first bytes."""
    return (path.is_dir() and not is_checkpoint_folder(path)) or (path.is_file() and contains_samples(path))


def open_real_data(x: Any, config: AuditConfig, target: OutputSpec | None = None) -> SampleSet:
    """Open samples from a path, array, tensor or Dataset. SourceError where they cannot be converted to `target`."""
    if isinstance(x, SampleSet):
        return x
    return open_samples(x, npz_key=config.npz_key, output=target, skip_broken=config.skip_broken)


def make_sampler(generator: LoadedGenerator, config: AuditConfig) -> Sampler:
    """A sampler on the configured device, with the prior of the configuration or that of the BatchNorm statistics."""
    if config.prior is None:
        generator = with_inferred_prior(generator)
    return Sampler(generator, device=config.device, batch_size=config.batch_size)


def with_inferred_prior(generator: LoadedGenerator) -> LoadedGenerator:
    """The generator with a uniform prior where its BatchNorm statistics show one and no setting states another."""
    if generator.latent.prior != "normal" or generator.trained_scale is not None:
        return generator
    return _apply_inferred_prior(generator, estimate_trained_scale(generator))


def _apply_inferred_prior(generator: LoadedGenerator, scale: TrainedScale | None) -> LoadedGenerator:
    """With a normal prior whose trained scale is that of U[-1, 1], std 3^-1/2: the generator with a uniform prior.

    Many training scripts draw uniform latents; none draws normal latents of just that scale.
    """
    if generator.latent.prior != "normal" or generator.trained_scale is not None:
        return generator
    if scale is None or scale.low <= 1.0 <= scale.high or not scale.low <= prior_std("uniform") <= scale.high:
        return generator
    inferred = Assumption(
        "prior", "uniform", "batch-norm", note=f"on [-1, 1]: latents had std {scale.value:.3f} in training"
    )
    others = tuple(entry for entry in generator.assumptions if entry.setting != "prior")
    return replace(generator, latent=replace(generator.latent, prior="uniform"), assumptions=(*others, inferred))


def _open_generator(generator: LoadedGenerator, config: AuditConfig) -> AuditSubject:
    scale = estimate_trained_scale(generator)
    if config.prior is None:
        loaded, generator = generator, _apply_inferred_prior(generator, scale)
        if generator is not loaded:
            scale = estimate_trained_scale(generator)  # in units of the other prior
    return _describe_sampler(Sampler(generator, device=config.device, batch_size=config.batch_size), scale)


def _describe_sampler(sampler: Sampler, trained_scale: TrainedScale | None) -> AuditSubject:
    return AuditSubject(
        sampler.output,
        sampler=sampler,
        facts=dict(sampler.subject),
        assumptions=tuple(sampler.generator.assumptions),
        notes=tuple(sampler.notes),
        trained_scale=trained_scale,
    )


def _open_function(function: SampleFunction, config: AuditConfig, n_real: int | None) -> AuditSubject:
    """The samples of a function, drawn at once. Nothing but samples is known of it: no latent, no weights."""
    n = config.n_samples("cpu")
    if config.n is None and n_real is not None:
        n = min(n, max(2, n_real // 2))
    drawn = draw_samples(function, n, seed=config.seed, block=config.batch_size)
    samples = replace(drawn, stream=GENERATED_ORDER, _keys=[])
    facts = {
        "path": None,
        "loader": "function",
        "family": name_function(function),
        "sha256": samples.fingerprint(),
        "weights": None,
    }
    return AuditSubject(_choose_output(samples, config), samples=samples, facts=facts)


def _choose_output(samples: SampleSet, config: AuditConfig) -> OutputSpec:
    """The samples' own output; images at --image-size where it is given, which mixed sizes need."""
    if config.image_size is None or samples.kind != "image":
        return samples.output
    channels = samples.channels
    return OutputSpec("image", (channels, config.image_size, config.image_size), DEFAULT_RANGE)


def _open_sample_set(x: Any, config: AuditConfig) -> AuditSubject:
    samples = replace(open_real_data(x, config), stream=GENERATED_ORDER, _keys=[])
    path = str(x) if isinstance(x, (str, os.PathLike)) else None
    facts = {
        "path": path,
        "loader": "samples",
        "family": samples.name,
        "sha256": samples.fingerprint(),
        "weights": None,
    }
    return AuditSubject(_choose_output(samples, config), samples=samples, facts=facts, notes=samples.remarks)
