"""What is audited: a generator that can be asked for samples, or samples that somebody drew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from gandiag.checkpoints.batchnorm.latent_scale import estimate_trained_scale
from gandiag.checkpoints.batchnorm.moments import prior_std
from gandiag.checkpoints.folders import is_checkpoint_folder
from gandiag.checkpoints.loader import LoadedGenerator, load_generator, wrap_module
from gandiag.config import AuditConfig
from gandiag.interfaces import Assumption, Batch, OutputSpec, SampleSource
from gandiag.sampling.sampler import Sampler
from gandiag.sampling.sources import SampleSet, contains_samples, generate_batches, open_samples


@dataclass(frozen=True, slots=True)
class AuditSubject:
    """One of the two, and what the record says of it."""

    output: OutputSpec
    sampler: Sampler | None = None
    samples: SampleSet | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    assumptions: tuple[Assumption, ...] = ()
    notes: tuple[Any, ...] = ()

    @property
    def classes(self) -> int | None:
        if self.sampler is not None:
            return self.sampler.classes
        return len(self.samples.class_names or ()) or None if self.samples is not None else None

    def available_samples(self, requested: int) -> int:
        """How many samples there can be: as many as asked of a generator, at most all of a set."""
        return requested if self.samples is None else min(requested, self.samples.n)

    def batches(
        self, source: SampleSource, batch_size: int, *, seed: int = 0, only_class: int | None = None
    ) -> Iterator[Batch]:
        """The stream of one source: indices 0 … n-1, samples in the output's range."""
        if self.sampler is not None:
            return generate_batches(self.sampler, source, source.n, batch_size, seed=seed, only_class=only_class)
        assert self.samples is not None
        return self.samples.iter_batches(batch_size, output=None, limit=source.n)


def open_subject(x: Any, config: AuditConfig) -> AuditSubject:
    """A path, Sampler, Network, nn.Module, array, tensor or Dataset as a Subject. LoadError or SourceError where it is none."""
    if isinstance(x, AuditSubject):
        return x
    if isinstance(x, (str, os.PathLike)) and not is_sample_path(Path(x)):
        return _of_sampler(make_sampler(load_generator(x, config), config))
    if isinstance(x, Sampler):
        return _of_sampler(x)
    if isinstance(x, LoadedGenerator):
        return _of_sampler(make_sampler(x, config))
    if isinstance(x, nn.Module):
        return _of_sampler(make_sampler(wrap_module(x, config), config))
    return _samples(x, config)


def is_sample_path(path: Path) -> bool:
    """Whether a path holds samples rather than weights: a folder, or a file of images or arrays by its bytes."""
    return (path.is_dir() and not is_checkpoint_folder(path)) or (path.is_file() and contains_samples(path))


def open_real_data(x: Any, config: AuditConfig, target: OutputSpec | None = None) -> SampleSet:
    """Samples from a path, array, tensor or Dataset, that can be brought to the output `fit`. SourceError where they cannot."""
    return x if isinstance(x, SampleSet) else open_samples(x, npz_key=config.npz_key, output=target)


def make_sampler(network: LoadedGenerator, config: AuditConfig) -> Sampler:
    """The network ready to be sampled: on its device, with the prior that the flags or its statistics say."""
    return Sampler(
        network if config.prior is not None else with_inferred_prior(network),
        device=config.device,
        batch_size=config.batch_size,
    )


def with_inferred_prior(network: LoadedGenerator) -> LoadedGenerator:
    """The network with a uniform prior, where its batch-norm statistics show the deviation of one and nobody said otherwise.

    Latents of deviation 3^-1/2 are those of U[-1, 1], which many training scripts draw; a normal of just that scale is not.
    """
    found = (
        estimate_trained_scale(network) if network.latent.prior == "normal" and network.trained_scale is None else None
    )
    if found is None or found.low <= 1.0 <= found.high or not found.low <= prior_std("uniform") <= found.high:
        return network
    said = Assumption(
        "latent prior (--prior)",
        f"uniform on [-1, 1]: the latents of the training had deviation {found.value:.3f}",
        "batch-norm",
    )
    kept = tuple(entry for entry in network.assumptions if "--prior" not in entry.what)
    return replace(network, latent=replace(network.latent, prior="uniform"), assumptions=(*kept, said))


def _of_sampler(sampler: Sampler) -> AuditSubject:
    return AuditSubject(
        sampler.output,
        sampler=sampler,
        facts=dict(sampler.subject),
        assumptions=tuple(sampler.assumptions),
        notes=tuple(sampler.notes),
    )


def _samples(x: Any, config: AuditConfig) -> AuditSubject:
    found = open_real_data(x, config)
    path = str(x) if isinstance(x, (str, os.PathLike)) else None
    facts = {"path": path, "loader": "samples", "family": found.name, "sha256": found.fingerprint(), "weights": None}
    return AuditSubject(found.output, samples=found, facts=facts)
