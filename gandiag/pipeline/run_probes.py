"""What is asked of the generator itself, and what is put on show: the scale sweep, sensitivity, conditioning, sample sheets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gandiag.checkpoints.architectures.layers.noise_input import find_noise_inputs
from gandiag.checkpoints.architectures.layers.truncation import find_truncation_layers
from gandiag.checkpoints.architectures.sampling_controls import fixed_noise_mode, override_sampling
from gandiag.exhibits.samples import SamplesWithFeatures, sample_grid, scale_grid, similar_pairs_grid
from gandiag.interfaces import MetricResult
from gandiag.metrics.modes import N_RAW_SAMPLES
from gandiag.pipeline.build_record import measurement_without_floor
from gandiag.pipeline.discriminator_probe import run_duality_gap
from gandiag.pipeline.engine import ProgressCallback, StageTimer, run_safely
from gandiag.pipeline.session import AuditSession
from gandiag.probes.batchnorm_mismatch import statistics_mismatch
from gandiag.probes.conditioning import Conditioning
from gandiag.probes.latent_sweep import TRUNCATION_PSIS, sweep_latent_scale
from gandiag.probes.noise_variance import NoiseVariance
from gandiag.probes.sensitivity import Sensitivity
from gandiag.record import Measurement
from gandiag.sampling.latents import make_noise_sampler, sample_latents
from gandiag.sampling.sampler import Sampler
from gandiag.stats.subset import SubsetSpec

SWEEP_LATENTS = 256  # latents of the scale sweep: the same at every scale
MAX_SHOWN_LATENTS = 8  # of them are shown at most


def run_probes(
    session: AuditSession, results: Mapping[str, Mapping[Any, Any]], *, timer: StageTimer, progress: ProgressCallback
) -> list[MetricResult]:
    """Every probe that this subject allows, each failing alone, then the sheets."""
    jobs: dict[str, Callable[[], MetricResult]] = {}
    sampler = session.subject.sampler
    if sampler is not None:
        jobs |= {
            "trained_scale": lambda: _trained(session, sampler),
            "sensitivity": lambda: _sensitivity(session, sampler),
            "scale sweep": lambda: _sweep(session, sampler, progress),
        }
        if any(find_noise_inputs(sampler.module)):
            jobs["noise_share"] = lambda: _noise(session, sampler)
        if sampler.classes:
            jobs["conditioning"] = lambda: _conditioning(session, sampler)
        if (match := session.duality_gap_plan) is not None:
            jobs["duality gap"] = lambda: run_duality_gap(
                match, sampler, session.real, session.config, scale=session.plan.sources["fake"].scale
            )
    else:
        still: dict[str, Any] = {
            "axis": None,
            "reason": "samples, not a generator: nothing can be asked of it",
            "points": [],
        }
        jobs["scale sweep"] = lambda: MetricResult(sections={"response": still})
    if session.config.exhibits:
        jobs["sheets"] = lambda: _sheets(session, results)
    outcomes = []
    for name, job in jobs.items():
        with timer.stage(name):
            outcomes.append(run_safely(name.replace(" ", "_"), job))
    return [*outcomes, MetricResult(session.not_measured)]


def _trained(study: AuditSession, sampler: Sampler) -> MetricResult:
    """The trained scale and the batch-norm mismatch: what the checkpoint's own statistics say."""
    measured: dict[str, Measurement] = {}
    if study.trained_scale is None:
        measured["trained_scale"] = Measurement.missing("no batch norm directly behind the first layer")
    else:
        known = study.trained_scale
        measured["trained_scale"] = Measurement(
            known.value, known.low, known.high, unit="prior deviations", reason=known.source
        )
    mismatch = statistics_mismatch(sampler.generator, seed=study.config.seed)  # type: ignore[arg-type]
    measured["bn_mismatch"] = (
        Measurement.missing("no batch norm with stored statistics")
        if mismatch is None
        else measurement_without_floor(mismatch)
    )
    return MetricResult(measured)


def _sensitivity(study: AuditSession, sampler: Sampler) -> MetricResult:
    base = _base(study, sampler, 8)
    labels = None if sampler.classes is None else torch.arange(8) % sampler.classes

    def forward(z: Tensor) -> Tensor:
        return sampler.generate(z, labels, bn=_eval_mode(study.config.bn)).cpu()

    return Sensitivity().measure(forward, base, sampler.latent, seed=study.config.seed)


def _conditioning(study: AuditSession, sampler: Sampler) -> MetricResult:
    def forward(z: Tensor, labels: Tensor) -> Tensor:
        return sampler.generate(z, labels, bn=_eval_mode(study.config.bn)).cpu()

    assert sampler.classes is not None
    return Conditioning().measure(forward, _base(study, sampler, 32), sampler.classes)


def _noise(study: AuditSession, sampler: Sampler) -> MetricResult:
    """Each latent alone, under noise that nothing else varies with."""
    seed, latent, probe = study.config.seed, sampler.latent, NoiseVariance()
    base = _base(study, sampler, probe.n_latents)
    labels = None if sampler.classes is None else torch.arange(probe.n_latents) % sampler.classes

    def forward(point: int, indices: Tensor) -> Tensor:
        z = base[point].expand(len(indices), *latent.shape)
        with override_sampling(sampler.module, noise_mode="random", noise_sampler=make_noise_sampler(seed, indices)):
            return sampler.generate(
                z, None if labels is None else labels[point].expand(len(indices)), bn=_eval_mode(study.config.bn)
            ).cpu()

    return probe.measure(forward)


def _sweep(study: AuditSession, sampler: Sampler, progress: ProgressCallback) -> MetricResult:
    """The same latents at every scale, in units of the scale that the verdict is about; at every psi, where scale does nothing.

    Noise inputs are held: the question is how the output follows the latent.
    """
    unit = study.plan.sources["fake"].scale
    scales = tuple(sorted({*study.config.scales, 1.0}))
    labels = None if study.config.class_ is None else torch.full((SWEEP_LATENTS,), study.config.class_)
    done = 0

    def sample_at(scale: float) -> Tensor:
        nonlocal done
        done += 1
        progress("scale sweep", min(done, len(scales)), len(scales))
        with override_sampling(sampler.module, noise_mode=fixed_noise_mode(sampler.module)):
            return sampler.sample_indices(
                torch.arange(SWEEP_LATENTS),
                seed=study.config.seed,
                scale=scale * unit,
                labels=labels,
                bn=study.config.bn,
            )

    kept: dict[float, Tensor] = {}

    def remembered(scale: float) -> Tensor:
        made = sample_at(scale)
        kept[scale] = made[:MAX_SHOWN_LATENTS]
        return made

    def truncated(psi: float) -> Tensor:
        with override_sampling(sampler.module, psi=psi, noise_mode=fixed_noise_mode(sampler.module)):
            made = sampler.sample_indices(
                torch.arange(SWEEP_LATENTS), seed=study.config.seed, scale=unit, labels=labels, bn=study.config.bn
            )
        kept[psi] = made[:MAX_SHOWN_LATENTS]
        return made

    psis = tuple(sorted({*TRUNCATION_PSIS, study.config.psi})) if any(find_truncation_layers(sampler.module)) else ()
    found = sweep_latent_scale(
        remembered,
        scales,
        output=study.subject.output,
        seed=study.config.seed,
        truncation=(truncated, psis) if psis else None,
    )
    over = found.sections["response"]["axis"]
    rows = {place: kept[place] for place in (psis if over == "psi" else scales) if place in kept}
    if study.subject.output.kind == "image" and study.config.exhibits and rows:
        found = MetricResult(
            found.measurements,
            found.sections,
            (*found.exhibits, scale_grid(rows, study.subject.output.range, over or "scale")),
        )
    return found


def _sheets(study: AuditSession, results: Mapping[str, Mapping[Any, Any]]) -> MetricResult:
    if study.subject.output.kind != "image":
        return MetricResult()
    ask, span = study.plan.context, study.subject.output.range
    samples, features = (
        results["fake"][SubsetSpec("samples", N_RAW_SAMPLES)],
        results["fake"].get(SubsetSpec(ask.view, ask.n)),
    )
    exhibits = [sample_grid(samples.values, span)]
    if features is not None and len(samples.indices) > 1:
        shown = SamplesWithFeatures.from_subsets(samples, features)
        exhibits.append(similar_pairs_grid(shown.samples, shown.features, span))
    return MetricResult(exhibits=tuple(exhibits))


def _base(study: AuditSession, sampler: Sampler, n: int) -> Tensor:
    """The first n latents of the audit, at the scale that the verdict is about."""
    return sample_latents(
        sampler.latent, torch.arange(n), seed=study.config.seed, scale=study.plan.sources["fake"].scale
    )


def _eval_mode(bn: str) -> str:
    """Single latents cannot be judged with the batch's own statistics: eval then."""
    return "eval" if bn == "batch" else bn
