"""What is audited: a generator that can be asked for samples, or samples that somebody drew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from gandiag.config import AuditConfig
from gandiag.contracts import Assumption, Batch, Output, Source
from gandiag.load.folders import holds_checkpoint
from gandiag.load.generator import Network, load_network, network_of
from gandiag.load.moments import prior_deviation
from gandiag.probes.trained_scale import trained_scale
from gandiag.sample.sampler import Sampler
from gandiag.sample.streams import SampleSet, fake_batches, looks_like_samples, open_samples


@dataclass(frozen=True, slots=True)
class Subject:
    """One of the two, and what the record says of it."""

    output: Output
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

    def count(self, asked: int) -> int:
        """How many samples there can be: as many as asked of a generator, at most all of a set."""
        return asked if self.samples is None else min(asked, self.samples.n)

    def batches(self, source: Source, batch_size: int, *, seed: int = 0, only_class: int | None = None) -> Iterator[Batch]:
        """The stream of one source: indices 0 … n-1, samples in the output's range."""
        if self.sampler is not None:
            return fake_batches(self.sampler, source, source.n, batch_size, seed=seed, only_class=only_class)
        assert self.samples is not None
        return self.samples.batches(batch_size, fit=None, limit=source.n)


def open_subject(x: Any, config: AuditConfig) -> Subject:
    """A path, Sampler, Network, nn.Module, array, tensor or Dataset as a Subject. LoadError or SourceError where it is none."""
    if isinstance(x, Subject):
        return x
    if isinstance(x, (str, os.PathLike)) and not is_samples(Path(x)):
        return _of_sampler(sampler_of(load_network(x, config), config))
    if isinstance(x, Sampler):
        return _of_sampler(x)
    if isinstance(x, Network):
        return _of_sampler(sampler_of(x, config))
    if isinstance(x, nn.Module):
        return _of_sampler(sampler_of(network_of(x, config), config))
    return _samples(x, config)


def is_samples(path: Path) -> bool:
    """Whether a path holds samples rather than weights: a folder, or a file of images or arrays by its bytes."""
    return (path.is_dir() and not holds_checkpoint(path)) or (path.is_file() and looks_like_samples(path))


def open_real(x: Any, config: AuditConfig, fit: Output | None = None) -> SampleSet:
    """Samples from a path, array, tensor or Dataset, that can be brought to the output `fit`. SourceError where they cannot."""
    return x if isinstance(x, SampleSet) else open_samples(x, npz_key=config.npz_key, fit=fit)


def sampler_of(network: Network, config: AuditConfig) -> Sampler:
    """The network ready to be sampled: on its device, with the prior that the flags or its statistics say."""
    return Sampler(network if config.prior is not None else with_likely_prior(network), device=config.device, batch_size=config.batch_size)


def with_likely_prior(network: Network) -> Network:
    """The network with a uniform prior, where its batch-norm statistics show the deviation of one and nobody said otherwise.

    Latents of deviation 3^-1/2 are those of U[-1, 1], which many training scripts draw; a normal of just that scale is not.
    """
    found = trained_scale(network) if network.latent.prior == "normal" and network.trained_scale is None else None
    if found is None or found.low <= 1.0 <= found.high or not found.low <= prior_deviation("uniform") <= found.high:
        return network
    said = Assumption("latent prior (--prior)", f"uniform on [-1, 1]: the latents of the training had deviation {found.value:.3f}", "batch-norm")
    kept = tuple(entry for entry in network.assumptions if "--prior" not in entry.what)
    return replace(network, latent=replace(network.latent, prior="uniform"), assumptions=(*kept, said))


def _of_sampler(sampler: Sampler) -> Subject:
    return Subject(sampler.output, sampler=sampler, facts=dict(sampler.subject), assumptions=tuple(sampler.assumptions), notes=tuple(sampler.notes))


def _samples(x: Any, config: AuditConfig) -> Subject:
    found = open_real(x, config)
    path = str(x) if isinstance(x, (str, os.PathLike)) else None
    facts = {"path": path, "loader": "samples", "family": found.name, "sha256": found.fingerprint(), "weights": None}
    return Subject(found.output, samples=found, facts=facts)
