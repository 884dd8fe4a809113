"""What is asked of the generator itself, and what is put on show: the scale sweep, sensitivity, conditioning, sample sheets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gandiag.assemble import fact
from gandiag.contracts import Outcome
from gandiag.engine import Clock, Progress, attempt
from gandiag.load.rebuild.knobs import still, turned
from gandiag.load.rebuild.noise import noise_inputs
from gandiag.load.rebuild.styles import truncations
from gandiag.metrics.exhibits import Shown, sample_grid, scale_rows, similar_pairs
from gandiag.metrics.modes import SHOWN
from gandiag.opponent import play
from gandiag.probes.batchnorm import statistics_mismatch
from gandiag.probes.conditioning import Conditioning
from gandiag.probes.noise_only import NoiseOnly
from gandiag.probes.response import PSIS, response
from gandiag.probes.sensitivity import Sensitivity
from gandiag.record import Measurement
from gandiag.sample.latents import latents, noise_of
from gandiag.sample.sampler import Sampler
from gandiag.stats.subset import Kept
from gandiag.study import Study

SWEEP = 256  # latents of the scale sweep: the same at every scale
SHOWN_LATENTS = 8  # of them are shown at most


def look(study: Study, results: Mapping[str, Mapping[Any, Any]], *, clock: Clock, progress: Progress) -> list[Outcome]:
    """Every probe that this subject allows, each failing alone, then the sheets."""
    jobs: dict[str, Callable[[], Outcome]] = {}
    sampler = study.subject.sampler
    if sampler is not None:
        jobs |= {
            "trained_scale": lambda: _trained(study, sampler),
            "sensitivity": lambda: _sensitivity(study, sampler),
            "scale sweep": lambda: _sweep(study, sampler, progress),
        }
        if any(noise_inputs(sampler.module)):
            jobs["noise_share"] = lambda: _noise(study, sampler)
        if sampler.classes:
            jobs["conditioning"] = lambda: _conditioning(study, sampler)
        if (match := study.match) is not None:
            jobs["duality gap"] = lambda: play(match, sampler, study.real, study.config, scale=study.plan.sources["fake"].scale)
    else:
        still: dict[str, Any] = {"axis": None, "reason": "samples, not a generator: nothing can be asked of it", "points": []}
        jobs["scale sweep"] = lambda: Outcome(sections={"response": still})
    if study.config.exhibits:
        jobs["sheets"] = lambda: _sheets(study, results)
    outcomes = []
    for name, job in jobs.items():
        with clock.stage(name):
            outcomes.append(attempt(name.replace(" ", "_"), job))
    return [*outcomes, Outcome(study.unmeasured)]


def _trained(study: Study, sampler: Sampler) -> Outcome:
    """The trained scale and the batch-norm mismatch: what the checkpoint's own statistics say."""
    measured: dict[str, Measurement] = {}
    if study.trained is None:
        measured["trained_scale"] = Measurement.missing("no batch norm directly behind the first layer")
    else:
        known = study.trained
        measured["trained_scale"] = Measurement(known.value, known.low, known.high, unit="prior deviations", reason=known.source)
    mismatch = statistics_mismatch(sampler.network, seed=study.config.seed)  # type: ignore[arg-type]
    measured["bn_mismatch"] = Measurement.missing("no batch norm with stored statistics") if mismatch is None else fact(mismatch)
    return Outcome(measured)


def _sensitivity(study: Study, sampler: Sampler) -> Outcome:
    base = _base(study, sampler, 8)
    labels = None if sampler.classes is None else torch.arange(8) % sampler.classes

    def forward(z: Tensor) -> Tensor:
        return sampler.run(z, labels, bn=_eval_mode(study.config.bn)).cpu()

    return Sensitivity().measure(forward, base, sampler.latent, seed=study.config.seed)


def _conditioning(study: Study, sampler: Sampler) -> Outcome:
    def forward(z: Tensor, labels: Tensor) -> Tensor:
        return sampler.run(z, labels, bn=_eval_mode(study.config.bn)).cpu()

    assert sampler.classes is not None
    return Conditioning().measure(forward, _base(study, sampler, 32), sampler.classes)


def _noise(study: Study, sampler: Sampler) -> Outcome:
    """Each latent alone, under noise that nothing else varies with."""
    seed, latent, probe = study.config.seed, sampler.latent, NoiseOnly()
    base = _base(study, sampler, probe.points)
    labels = None if sampler.classes is None else torch.arange(probe.points) % sampler.classes

    def forward(point: int, indices: Tensor) -> Tensor:
        z = base[point].expand(len(indices), *latent.shape)
        with turned(sampler.module, noise="random", draw=noise_of(seed, indices)):
            return sampler.run(z, None if labels is None else labels[point].expand(len(indices)), bn=_eval_mode(study.config.bn)).cpu()

    return probe.measure(forward)


def _sweep(study: Study, sampler: Sampler, progress: Progress) -> Outcome:
    """The same latents at every scale, in units of the scale that the verdict is about; at every psi, where scale does nothing.

    Noise inputs are held: the question is how the output follows the latent.
    """
    unit = study.plan.sources["fake"].scale
    scales = tuple(sorted({*study.config.scales, 1.0}))
    labels = None if study.config.class_ is None else torch.full((SWEEP,), study.config.class_)
    done = 0

    def sample_at(scale: float) -> Tensor:
        nonlocal done
        done += 1
        progress("scale sweep", min(done, len(scales)), len(scales))
        with turned(sampler.module, noise=still(sampler.module)):
            return sampler.at(torch.arange(SWEEP), seed=study.config.seed, scale=scale * unit, labels=labels, bn=study.config.bn)

    kept: dict[float, Tensor] = {}

    def remembered(scale: float) -> Tensor:
        made = sample_at(scale)
        kept[scale] = made[:SHOWN_LATENTS]
        return made

    def truncated(psi: float) -> Tensor:
        with turned(sampler.module, psi=psi, noise=still(sampler.module)):
            made = sampler.at(torch.arange(SWEEP), seed=study.config.seed, scale=unit, labels=labels, bn=study.config.bn)
        kept[psi] = made[:SHOWN_LATENTS]
        return made

    psis = tuple(sorted({*PSIS, study.config.psi})) if any(truncations(sampler.module)) else ()
    found = response(remembered, scales, output=study.subject.output, seed=study.config.seed, truncated=(truncated, psis) if psis else None)
    over = found.sections["response"]["axis"]
    rows = {place: kept[place] for place in (psis if over == "psi" else scales) if place in kept}
    if study.subject.output.kind == "image" and study.config.exhibits and rows:
        found = Outcome(found.measurements, found.sections, (*found.exhibits, scale_rows(rows, study.subject.output.range, over or "scale")))
    return found


def _sheets(study: Study, results: Mapping[str, Mapping[Any, Any]]) -> Outcome:
    if study.subject.output.kind != "image":
        return Outcome()
    ask, span = study.plan.question, study.subject.output.range
    samples, features = results["fake"][Kept("samples", SHOWN)], results["fake"].get(Kept(ask.view, ask.n))
    exhibits = [sample_grid(samples.values, span)]
    if features is not None and len(samples.indices) > 1:
        shown = Shown.of(samples, features)
        exhibits.append(similar_pairs(shown.samples, shown.features, span))
    return Outcome(exhibits=tuple(exhibits))


def _base(study: Study, sampler: Sampler, n: int) -> Tensor:
    """The first n latents of the audit, at the scale that the verdict is about."""
    return latents(sampler.latent, torch.arange(n), seed=study.config.seed, scale=study.plan.sources["fake"].scale)


def _eval_mode(bn: str) -> str:
    """Single latents cannot be judged with the batch's own statistics: eval then."""
    return "eval" if bn == "batch" else bn
