"""Runs the probes that call the generator, and makes the sample sheets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gandiag.checkpoints.architectures.layers.noise_input import find_noise_inputs
from gandiag.checkpoints.architectures.layers.truncation import find_truncation_layers
from gandiag.checkpoints.architectures.sampling_controls import fixed_noise_mode, override_sampling
from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.exhibits.samples import SamplesWithFeatures, sample_grid, scale_grid, similar_pairs_grid
from gandiag.interfaces import MetricResult
from gandiag.metrics.modes import N_RAW_SAMPLES
from gandiag.pipeline.build_record import measurement_without_floor
from gandiag.pipeline.copy_probe import measure_copies
from gandiag.pipeline.discriminator_probe import run_duality_gap
from gandiag.pipeline.engine import ProgressCallback, StageTimer, run_safely
from gandiag.pipeline.session import AuditSession
from gandiag.probes.batchnorm_mismatch import statistics_mismatch
from gandiag.probes.conditioning import Conditioning
from gandiag.probes.latent_response import N_LATENTS, measure_latent_response
from gandiag.probes.latent_sweep import TRUNCATION_PSIS, sweep_latent_scale
from gandiag.probes.noise_variance import NoiseVariance
from gandiag.probes.sensitivity import Sensitivity
from gandiag.record import Measurement
from gandiag.sampling.latents import make_noise_sampler, sample_latents
from gandiag.sampling.sampler import Sampler
from gandiag.stats.subset import SubsetSpec

SWEEP_LATENTS = 256  # latents of the scale sweep, the same at every scale
MAX_SHOWN_LATENTS = 8  # of which so many are shown

Results = Mapping[str, Mapping[Any, Any]]


def run_probes(
    session: AuditSession, results: Results, *, timer: StageTimer, progress: ProgressCallback
) -> list[MetricResult]:
    """Every probe that applies to this subject, then the sample sheets.

    A probe that raises does not stop the others.
    """
    jobs: dict[str, Callable[[], MetricResult]] = {}
    sampler = session.subject.sampler
    tables = session.tables
    if sampler is None:
        jobs["scale sweep"] = lambda: _describe_missing_sweep(session)
    else:
        jobs |= _generator_jobs(session, sampler, progress)
    if tables is not None and tables.encoder is not None and tables.real is not None:
        jobs["closest records"] = lambda: tables.measure_closest_records(session.config.seed)
    if session.real is not None:
        jobs["copies"] = lambda: measure_copies(session, results)
    if session.config.exhibits:
        jobs["sheets"] = lambda: _make_sheets(session, results)
    outcomes = []
    for name, job in jobs.items():
        with timer.stage(name):
            outcomes.append(run_safely(name.replace(" ", "_"), job))
    return [*outcomes, MetricResult(session.not_measured)]


def _generator_jobs(
    session: AuditSession, sampler: Sampler, progress: ProgressCallback
) -> dict[str, Callable[[], MetricResult]]:
    """The probes of a generator by stage name, in the order in which they run."""
    jobs: dict[str, Callable[[], MetricResult]] = {
        "trained_scale": lambda: _check_batchnorm(session, sampler),
        "sensitivity": lambda: _measure_sensitivity(session, sampler),
        "latent response": lambda: _measure_latent_response(session, sampler),
        "scale sweep": lambda: _ScaleSweep(session, sampler, progress).run(),
    }
    if any(find_noise_inputs(sampler.module)):
        jobs["noise_share"] = lambda: _measure_noise_variance(session, sampler)
    if sampler.classes:
        jobs["conditioning"] = lambda: _measure_conditioning(session, sampler)
    plan = session.duality_gap_plan
    if plan is not None:
        scale = session.plan.sources["fake"].scale
        jobs["duality gap"] = lambda: run_duality_gap(plan, sampler, session.real, session.config, scale=scale)
    return jobs


def _describe_missing_sweep(session: AuditSession) -> MetricResult:
    is_function = session.subject.facts.get("loader") == "function"
    reason = f"the subject is a {'function' if is_function else 'set of samples'}, whose latents are unknown"
    return MetricResult(sections={"response": {"axis": None, "reason": reason, "points": []}})


def _check_batchnorm(session: AuditSession, sampler: Sampler) -> MetricResult:
    """The trained scale and the BatchNorm mismatch: what the checkpoint's own statistics say."""
    scale = session.subject.trained_scale
    if scale is None:
        scale_measurement = Measurement.missing("no BatchNorm directly after the first layer")
    else:
        scale_measurement = Measurement(
            scale.value, scale.low, scale.high, unit="prior deviations", reason=scale.source
        )
    mismatch = None
    if isinstance(sampler.generator, LoadedGenerator):
        trained_at = 1.0 if scale is None else scale.value
        mismatch = statistics_mismatch(sampler.generator, seed=session.config.seed, scale=trained_at)
    if mismatch is None:
        mismatch_measurement = Measurement.missing("no BatchNorm with stored statistics")
    else:
        mismatch_measurement = measurement_without_floor(mismatch)
    return MetricResult({"trained_scale": scale_measurement, "bn_mismatch": mismatch_measurement})


def _measure_sensitivity(session: AuditSession, sampler: Sampler) -> MetricResult:
    probe = Sensitivity()
    labels = None if sampler.classes is None else torch.arange(probe.n_latents) % sampler.classes

    def forward(z: Tensor) -> Tensor:
        return sampler.generate(z, labels, bn=_single_latent_mode(session.config.bn)).cpu()

    latents = _audit_latents(session, sampler, probe.n_latents)
    return probe.measure(forward, latents, sampler.latent, seed=session.config.seed)


def _measure_latent_response(session: AuditSession, sampler: Sampler) -> MetricResult:
    """Noise that the network draws itself is the same in every call, row by row."""
    labels = None if sampler.classes is None else torch.arange(N_LATENTS) % sampler.classes
    devices = [sampler.device] if sampler.device.type == "cuda" else []

    def forward(z: Tensor) -> Tensor:
        with torch.random.fork_rng(devices):
            torch.manual_seed(session.config.seed)
            return sampler.generate(z, labels, bn=_single_latent_mode(session.config.bn)).cpu()

    return measure_latent_response(forward, _audit_latents(session, sampler, N_LATENTS), seed=session.config.seed)


def _measure_conditioning(session: AuditSession, sampler: Sampler) -> MetricResult:
    probe = Conditioning()

    def forward(z: Tensor, labels: Tensor) -> Tensor:
        return sampler.generate(z, labels, bn=_single_latent_mode(session.config.bn)).cpu()

    assert sampler.classes is not None
    return probe.measure(forward, _audit_latents(session, sampler, probe.n_latents), sampler.classes)


def _measure_noise_variance(session: AuditSession, sampler: Sampler) -> MetricResult:
    """Each latent on its own under several draws of the noise inputs, so that nothing else varies."""
    seed, probe = session.config.seed, NoiseVariance()
    latents = _audit_latents(session, sampler, probe.n_latents)
    labels = None if sampler.classes is None else torch.arange(probe.n_latents) % sampler.classes

    def forward(point: int, indices: Tensor) -> Tensor:
        z = latents[point].expand(len(indices), *sampler.latent.shape)
        point_labels = None if labels is None else labels[point].expand(len(indices))
        with override_sampling(sampler.module, noise_mode="random", noise_sampler=make_noise_sampler(seed, indices)):
            return sampler.generate(z, point_labels, bn=_single_latent_mode(session.config.bn)).cpu()

    return probe.measure(forward)


class _ScaleSweep:
    """The same latents at every scale, in units of that of "fake"; at every truncation psi where scale has no effect.

    Noise inputs are held fixed: the sweep is about how the output follows the latent.
    """

    def __init__(self, session: AuditSession, sampler: Sampler, progress: ProgressCallback) -> None:
        config = session.config
        self.session, self.sampler, self.progress = session, sampler, progress
        self.unit = session.plan.sources["fake"].scale
        self.scales = tuple(sorted({*config.scales, 1.0}))
        has_truncation = any(find_truncation_layers(sampler.module))
        self.psis = tuple(sorted({*TRUNCATION_PSIS, config.psi})) if has_truncation else ()
        self.n_sampled = 0
        self.shown: dict[float, Tensor] = {}

    def run(self) -> MetricResult:
        config, output = self.session.config, self.session.subject.output
        result = sweep_latent_scale(
            self._sample_at_scale,
            self.scales,
            output=output,
            seed=config.seed,
            truncation=(self._sample_at_psi, self.psis) if self.psis else None,
        )
        axis = result.sections["response"]["axis"]
        rows = {at: self.shown[at] for at in (self.psis if axis == "psi" else self.scales) if at in self.shown}
        if output.kind != "image" or not config.exhibits or not rows:
            return result
        grid = scale_grid(rows, output.range, axis or "scale")
        return MetricResult(result.measurements, result.sections, (*result.exhibits, grid))

    def _sample_at_scale(self, scale: float) -> Tensor:
        self.n_sampled += 1
        self.progress("scale sweep", min(self.n_sampled, len(self.scales)), len(self.scales))
        return self._sample(at=scale, scale=scale * self.unit, psi=None)

    def _sample_at_psi(self, psi: float) -> Tensor:
        return self._sample(at=psi, scale=self.unit, psi=psi)

    def _sample(self, *, at: float, scale: float, psi: float | None) -> Tensor:
        config, module = self.session.config, self.sampler.module
        labels = None if config.class_ is None else torch.full((SWEEP_LATENTS,), config.class_)
        with override_sampling(module, psi=psi, noise_mode=fixed_noise_mode(module)):
            samples = self.sampler.sample_indices(
                torch.arange(SWEEP_LATENTS), seed=config.seed, scale=scale, labels=labels, bn=config.bn
            )
        self.shown[at] = samples[:MAX_SHOWN_LATENTS]
        return samples


def _make_sheets(session: AuditSession, results: Results) -> MetricResult:
    """For images: a grid of samples and the most similar pairs."""
    output, context = session.subject.output, session.plan.context
    if output.kind != "image":
        return MetricResult()
    samples = results["fake"][SubsetSpec("samples", N_RAW_SAMPLES)]
    features = results["fake"].get(SubsetSpec(context.view, context.n))
    exhibits = [sample_grid(samples.values, output.range)]
    if features is not None and len(samples.indices) > 1:
        both = SamplesWithFeatures.from_subsets(samples, features)
        exhibits.append(similar_pairs_grid(both.samples, both.features, output.range))
    return MetricResult(exhibits=tuple(exhibits))


def _audit_latents(session: AuditSession, sampler: Sampler, n: int) -> Tensor:
    """The first n latents of the audit, at the scale of "fake"."""
    scale = session.plan.sources["fake"].scale
    return sample_latents(sampler.latent, torch.arange(n), seed=session.config.seed, scale=scale)


def _single_latent_mode(bn: str) -> str:
    """The BatchNorm mode for single latents: eval in place of batch statistics, which one latent does not have."""
    return "eval" if bn == "batch" else bn
