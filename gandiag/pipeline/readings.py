"""Samples every network that the file may hold and scores each, where the file leaves settings open.

A verdict stands only if all readings that make other samples agree (`verdict.readings`). Readings are scored on the
same latents, on fewer samples than the audit's own, and only until one disagrees: the likeliest to do so come first.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gandiag.checkpoints.confidence import SAME_OUTPUTS
from gandiag.checkpoints.generator import LoadedGenerator, OpenReadings, Reading
from gandiag.checkpoints.inference.forward_cost import count_multiplications
from gandiag.checkpoints.inference.open_settings import MAX_READINGS
from gandiag.config import AuditConfig
from gandiag.errors import GandiagError
from gandiag.interfaces import MetricResult, SampleSource
from gandiag.metrics.collapse_score import create_score_metrics
from gandiag.pipeline.engine import ProgressCallback, StageTimer, no_progress, run_metrics
from gandiag.pipeline.output_reading import make_sigmoid_reading
from gandiag.pipeline.passes import run_passes
from gandiag.pipeline.plan import AuditPlan
from gandiag.pipeline.session import AuditSession
from gandiag.pipeline.subject import open_subject
from gandiag.record import Score
from gandiag.sampling.sampler import Sampler
from gandiag.verdict.policy import compute_score_verdict

READING_SAMPLES = 400  # generated samples by which a reading is scored
MAX_SCORED = 48  # readings that are scored; beyond, the verdict is inconclusive
_COMPARED, _MIN_COMPARED = 48, 8  # latents on which readings are compared with each other
_COMPARE_BUDGET = 3e11  # multiplications spent on comparing, about ten seconds; readings beyond count as different


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    """A reading that makes other samples. `samples`: (N, D) of the first latents; `distance`: from the real moments."""

    reading: Reading
    samples: Tensor | None
    distance: float


def score_readings(
    session: AuditSession, outcome: MetricResult, *, timer: StageTimer, progress: ProgressCallback
) -> dict[str, Any] | None:
    """The record's `subject.readings`; None where nothing is open, or every reading makes the same samples.

    `open`: each open setting with the value taken; `distinct`: readings that make other samples than that one;
    `scored`: their settings and scores; `left`: how many were not scored; `nearest`: the one whose samples' mean and
    spread are nearest to the real data's.
    """
    generator = None if session.subject.sampler is None else session.subject.sampler.generator
    if not isinstance(generator, LoadedGenerator):
        return None
    sigmoid = _find_sigmoid_reading(session, generator)
    opened = dict(generator.open_readings.settings) if generator.open_readings is not None else {}
    opened |= {"output_activation": "tanh"} if sigmoid is not None else {}
    with timer.stage("readings"):
        candidates, n_unmade = [] if sigmoid is None else [sigmoid], 0
        if generator.open_readings is not None:
            draw = _Draw.of_session(session)
            found, n_unmade = _list_distinct(draw, generator.open_readings, _real_moments(session))
            candidates += found
        if not candidates:
            return None
        verdict = _own_verdict(session, outcome)
        scored = _score_until_disagreement(session, candidates, verdict, progress)
    nearest = min(candidates, key=lambda entry: entry.distance)
    own = _Draw.of_session(session).sample(session.subject.sampler)
    own_distance = _moment_distance(own, _real_moments(session))
    return {
        "open": opened,
        "distinct": len(candidates) + n_unmade,
        "scored": scored,
        "left": len(candidates) + n_unmade - len(scored),
        "nearest": dict(nearest.reading.settings) if nearest.distance < own_distance else None,
    }


def find_distinct_readings(sampler: Sampler | None, config: AuditConfig, scale: float) -> dict[str, Any] | None:
    """The same document without scores, where none are computed: a verdict then needs that nothing is open.

    For grouped audits. None where nothing is open, or every reading makes the same samples.
    """
    generator = None if sampler is None else sampler.generator
    if not isinstance(generator, LoadedGenerator) or generator.open_readings is None:
        return None
    found, n_unmade = _list_distinct(_Draw(config, scale, sampler), generator.open_readings, None)
    count = len(found) + n_unmade
    if not found:
        return None
    opened = dict(generator.open_readings.settings)
    return {"open": opened, "distinct": count, "scored": [], "left": count, "nearest": None}


def _find_sigmoid_reading(session: AuditSession, generator: LoadedGenerator) -> _Candidate | None:
    """The generator with a sigmoid at its end, where the real data's values speak for it."""
    if session.real is None or session.subject.output.range != (-1.0, 1.0):
        return None
    samples = _Draw.of_session(session).sample(session.subject.sampler)
    if not samples.numel():
        return None
    batches = session.real.iter_batches(4 * _COMPARED, output=session.subject.output, limit=4 * _COMPARED)
    reading = make_sigmoid_reading(generator, samples, next(iter(batches)).samples.flatten(1))
    return None if reading is None else _Candidate(reading, None, -1.0)


def _own_verdict(session: AuditSession, outcome: MetricResult) -> str:
    """The verdict of the reading taken, before the others are asked."""
    score = outcome.sections.get("score")
    if outcome.sections.get("doubts") or not isinstance(score, Score):
        return "inconclusive"
    return compute_score_verdict(score, session.config.limit)


# which readings make other samples


@dataclass(frozen=True, slots=True, eq=False)
class _Draw:
    """How readings are sampled to be compared: on the same latents as `own`. `n`: how many."""

    config: AuditConfig
    scale: float
    own: Sampler | None
    n: int = _COMPARED

    @classmethod
    def of_session(cls, session: AuditSession) -> _Draw:
        return cls(session.config, session.plan.sources["fake"].scale, session.subject.sampler)

    def sample_reading(self, reading: Reading) -> Tensor:
        return self.sample(Sampler(reading.generator, device=self.config.device, batch_size=self.config.batch_size))

    def sample(self, sampler: Sampler | None) -> Tensor:
        """The first samples of a generator, (N, D); empty where they are not finite."""
        assert sampler is not None
        try:
            samples = sampler.sample_indices(torch.arange(self.n), seed=self.config.seed, scale=self.scale)
        except GandiagError:
            return torch.empty(0, 0)
        return samples.flatten(1)


def _list_distinct(
    draw: _Draw, open_readings: OpenReadings, real: tuple[float, Tensor] | None
) -> tuple[list[_Candidate], int]:
    """The readings that make other samples than the one taken and than each other; how many more were not made."""
    draw, affordable = _fit_budget(draw, open_readings.total)
    known = [draw.sample(draw.own)]
    candidates: list[_Candidate] = []
    n_made = 0
    for n_made, reading in enumerate(open_readings.make(), start=1):
        if n_made > affordable:
            candidates.append(_Candidate(reading, None, math.inf))
            continue
        samples = draw.sample_reading(reading)
        if any(_same_samples(samples, other) for other in known):
            continue
        known.append(samples)
        candidates.append(_Candidate(reading, samples, _moment_distance(samples, real)))
    return candidates, max(0, open_readings.total - n_made) if n_made >= MAX_READINGS else 0


def _fit_budget(draw: _Draw, total: int) -> tuple[_Draw, int]:
    """The draw with as many latents as comparing all readings can afford, and how many readings it can."""
    assert draw.own is not None
    single = dataclasses.replace(draw, n=1)
    cost = max(1.0, count_multiplications(draw.own.module, lambda: single.sample(draw.own)))
    n = int(max(_MIN_COMPARED, min(draw.n, _COMPARE_BUDGET / cost / (1 + total))))
    return dataclasses.replace(draw, n=n), int(_COMPARE_BUDGET / cost / n)


def _same_samples(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    if not first.numel():
        return True
    spread = max(float((entry - entry.mean(0)).square().mean().sqrt()) for entry in (first, second))
    return float((first - second).square().mean().sqrt()) <= SAME_OUTPUTS * spread


def _real_moments(session: AuditSession) -> tuple[float, Tensor] | None:
    """Spread and mean (D,) of a few real samples; None without real data."""
    if session.real is None:
        return None
    batches = session.real.iter_batches(4 * _COMPARED, output=session.subject.output, limit=4 * _COMPARED)
    rows = next(iter(batches)).samples.flatten(1)
    return float((rows - rows.mean(0)).square().mean().sqrt()), rows.mean(0)


def _moment_distance(samples: Tensor, real: tuple[float, Tensor] | None) -> float:
    """How far the samples' mean and spread are from the real data's; without real data, minus the log spread."""
    if not samples.numel():
        return math.inf
    spread = max(1e-12, float((samples - samples.mean(0)).square().mean().sqrt()))
    if real is None:
        return -math.log(spread)
    real_spread, mean = max(1e-12, real[0]), real[1]
    shift = float((samples.mean(0) - mean).square().mean().sqrt()) if len(mean) == samples.shape[1] else 0.0
    return shift / real_spread + abs(math.log(spread / real_spread))


# scores


def _score_until_disagreement(
    session: AuditSession, candidates: Sequence[_Candidate], verdict: str, progress: ProgressCallback
) -> list[dict[str, Any]]:
    """Settings and scores of the readings, up to the first that disagrees with `verdict`; none if that is open."""
    if verdict == "inconclusive":
        return []
    ranked = sorted(candidates, key=lambda entry: entry.distance, reverse=verdict != "collapsed")
    scored: list[dict[str, Any]] = []
    for entry in ranked[:MAX_SCORED]:
        progress("readings", len(scored), min(MAX_SCORED, len(ranked)))
        score, doubtful = _score_reading(session, entry.reading)
        settings: Mapping[str, str] = entry.reading.settings
        scored.append(
            {
                "settings": dict(settings),
                "value": score.value,
                "low": score.low,
                "high": score.high,
                "basis": score.basis,
                "doubtful": doubtful,
            }
        )
        if doubtful or compute_score_verdict(score, session.config.limit) != verdict:
            break
    return scored


def _score_reading(session: AuditSession, reading: Reading) -> tuple[Score, bool]:
    """The collapse score of a reading, and whether the estimator doubts it; an empty score where it cannot run."""
    try:
        reading_session = _open_reading(session, reading)
        timer = StageTimer()
        results = run_passes(reading_session, timer, no_progress)
        outcome = run_metrics(reading_session.plan.metrics, results, timer=timer)
    except GandiagError:
        return Score(None, None, None), True
    score = outcome.sections.get("score") or Score(None, None, None)
    return score, bool(outcome.sections.get("doubts"))


def _open_reading(session: AuditSession, reading: Reading) -> AuditSession:
    """The audit's session with another generator, which only the score is computed of."""
    config = dataclasses.replace(session.config, prior=reading.generator.latent.prior)
    subject = open_subject(dataclasses.replace(reading.generator, open_readings=None), config)
    n = min(READING_SAMPLES, session.plan.context.n)
    if session.real is not None:
        n = min(n, max(2, session.real.n // 2))
    scale = session.plan.sources["fake"].scale
    source = SampleSource("fake", scale=scale, bn=session.config.bn, n=n)
    context = dataclasses.replace(session.plan.context, n=n, roles=("fake",), output=subject.output)
    metrics = tuple(metric for metric in create_score_metrics(context) if metric.key == "score")
    return dataclasses.replace(session, subject=subject, plan=AuditPlan(context, {"fake": source}, metrics))
