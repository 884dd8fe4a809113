"""Degeneracy: what the samples alone show of collapse. The score where there is no real data.

Two outputs are the same where they are equal, where they differ by noise without structure or by a shift of a few
pixels, and for a network also where its response to z vanishes against its own values (`gandiag.metrics.repeats`).
The score is 1 - (different outputs) / (outputs). Where the data may honestly repeat (discrete outcomes, empty masks,
sets near one point) the repeats are not counted, but widen the interval up to what they would count.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gandiag.interfaces import Estimate, MetricResult, Needs, OutputSpec
from gandiag.metrics.repeats.discrete import group_equal_images, group_equal_vectors, is_explained
from gandiag.metrics.repeats.groups import RepeatGroups, first_rows, merge_labels, renumber
from gandiag.metrics.repeats.noise import Grid, group_noisy_copies
from gandiag.metrics.repeats.shifts import group_shifted_copies
from gandiag.metrics.repeats.vectors import group_near_vectors
from gandiag.metrics.score.estimator import MIN_SAMPLES
from gandiag.record import EQUAL_OUTPUTS, Measurement, Score
from gandiag.stats.resampling import MAX_SUBSAMPLE_ROWS, draw_halves, subsample_indices, wilson_interval
from gandiag.stats.subset import SubsetSpec

MAX_PRODUCTS = 2e10  # multiplications for one distance matrix
MIN_COMPARED = 300
MIN_IMAGE_SIDE = 12
COLUMN_KINDS = ("vector", "table")  # outputs whose values may honestly repeat, column by column
UNKNOWN = "cannot be known without --real"
REASON = "from the samples alone: a lower bound"


@dataclass(frozen=True, slots=True)
class Degeneracy:
    """Repeats among generated samples, in output space.

    `is_network`: the samples come from a network of this audit, so that their values have a natural origin. `key`:
    "degeneracy" with real data, which give the score: then a measurement alone.
    """

    n: int
    seed: int = 0
    output: OutputSpec | None = None
    is_network: bool = False
    key: str = "score"

    def needs(self) -> Needs:
        return {"fake": frozenset({SubsetSpec("samples", self.n)})}

    def measure(self, results: Any) -> MetricResult:
        samples = results["fake"][SubsetSpec("samples", self.n)].values
        n = len(samples)
        if n < MIN_SAMPLES:
            reason = f"{n:,} samples are too few to measure repeats: {MIN_SAMPLES} are needed"
            score = Score(None, None, None, basis="degeneracy", n_fake=n)
            return self._make_result({self.key: Measurement.missing(reason)}, {"score": score, "doubts": [reason]})
        repeats = find_repeats(samples, self.output, is_network=self.is_network, seed=self.seed)
        loss = repeats.loss
        unknown = f"{repeats.reason}: whether the real data do the same {UNKNOWN}" if repeats.reason else ""
        measurement = Measurement(loss.value, loss.low, loss.high, None, "share", "lower", n, reason=unknown or REASON)
        measurements = {self.key: measurement, **_count_measurements(repeats, n)}
        score = Score(
            loss.value, loss.low, loss.high, basis="degeneracy", n_fake=n, replicates=repeats.replicate(self.seed)
        )
        return self._make_result(measurements, {"score": score})

    def _make_result(self, measurements: dict[str, Measurement], sections: dict[str, Any]) -> MetricResult:
        return MetricResult(measurements, sections if self.key == "score" else {})


@dataclass(frozen=True, slots=True)
class Repeats:
    """`sure`: outputs that repeat for certain. `possible`: these and the ones that the data may explain.

    `observed`: all that are the same, whatever the reason.
    """

    sure: RepeatGroups
    possible: RepeatGroups
    observed: RepeatGroups

    @property
    def loss(self) -> Estimate:
        """The share of outputs that repeat another one; its upper end includes the possible ones."""
        n, value = len(self.sure.labels), self.sure.repeated
        low, high = wilson_interval(value, n)
        if self.reason:
            high = max(high, wilson_interval(self.possible.repeated, len(self.possible.labels))[1])
        return Estimate(value, 0.0 if value == 0 else low, high)

    @property
    def reason(self) -> str:
        """Why the possible repeats may be a property of the data; "" where there are none."""
        return self.possible.reason

    def replicate(self, seed: int, count: int = 20) -> tuple[float, ...]:
        """The loss on random halves of the samples."""
        generator = torch.Generator().manual_seed(seed)
        halves = [draw_halves((len(self.sure.labels),), generator)[0] for _ in range(count)]
        return tuple(RepeatGroups(self.sure.labels[half]).repeated for half in halves)


def find_repeats(
    samples: Tensor, output: OutputSpec | None = None, *, is_network: bool = False, seed: int = 0
) -> Repeats:
    """The repeats among `samples` (n, *shape). `output`: kind and range; vectors by default.

    Equal outputs are counted among all samples, others among at most 2,000, fewer of large ones.
    """
    kind = "vector" if output is None else output.kind
    rows = samples.flatten(1).float()
    equal = group_equal_images(rows) if kind == "image" else _group_equal_rows(rows, kind)
    if equal.reason:
        return _split_possible(equal, kind)
    chosen = subsample_indices(len(rows), _count_compared(rows.shape[1]), seed=seed)
    labels = renumber(equal.labels[chosen])
    similar = _add_similar(samples[chosen].float(), labels, _choose_methods(output, samples, is_network, seed))
    if similar.reason:
        return Repeats(equal, similar, similar)
    sure = equal if equal.repeated >= similar.repeated else similar
    return Repeats(sure, sure, sure)


def _count_compared(width: int) -> int:
    """How many outputs of this width are compared with each other: the cost is their square times the width."""
    return int(min(MAX_SUBSAMPLE_ROWS, max(MIN_COMPARED, (MAX_PRODUCTS / width) ** 0.5)))


def _group_equal_rows(rows: Tensor, kind: str) -> RepeatGroups:
    groups = group_equal_vectors(rows)
    return groups if kind in COLUMN_KINDS else RepeatGroups(groups.labels)


def _split_possible(equal: RepeatGroups, kind: str) -> Repeats:
    """No repeat is sure; possible are those that the data do not plainly explain."""
    distinct = RepeatGroups(torch.arange(len(equal.labels)))
    return Repeats(distinct, distinct if kind in COLUMN_KINDS and is_explained(equal) else equal, equal)


Method = Callable[[Tensor], RepeatGroups]


def _choose_methods(output: OutputSpec | None, samples: Tensor, is_network: bool, seed: int) -> tuple[Method, ...]:
    """How outputs of this kind are compared: each takes samples (k, *shape)."""
    near_vectors = partial(group_near_vectors, is_network=is_network)
    if output is None or output.kind == "vector":
        return (near_vectors,)
    if output.kind == "table":  # rows of columns in units of their own: only equal ones are the same
        return ()
    if output.kind == "series":
        grid = Grid((math.prod(samples.shape[1:-1]), 1, samples.shape[-1]), 0.0, is_network)
        noisy = partial(group_noisy_copies, grid=grid)
        return (noisy, near_vectors) if is_network else (noisy,)
    low, high = output.range or (float(samples.min()), float(samples.max()))
    height, width = (int(side) for side in samples.shape[-2:])
    if min(height, width) < MIN_IMAGE_SIDE:  # too few pixels to tell structure from noise
        return (near_vectors,)
    grid = Grid((math.prod(samples.shape[1:-2]), height, width), high - low, is_network)
    return partial(group_noisy_copies, grid=grid), partial(group_shifted_copies, seed=seed)


def _add_similar(samples: Tensor, labels: Tensor, methods: tuple[Method, ...]) -> RepeatGroups:
    """The groups of the method that finds most; groups that need real data only where no method is sure."""
    representatives = samples[first_rows(labels)]
    found = [method(representatives) for method in methods]
    merged = [RepeatGroups(merge_labels(labels, one.labels), one.difference, one.reason) for one in found]
    sure = max((one for one in merged if not one.reason), key=lambda one: one.repeated, default=RepeatGroups(labels))
    unsure = max((one for one in merged if one.reason), key=lambda one: one.repeated, default=sure)
    return unsure if unsure.repeated > 2 * sure.repeated + 0.1 else sure


def _count_measurements(repeats: Repeats, n: int) -> dict[str, Measurement]:
    """The number of different outputs, and the share of the most frequent one."""
    groups = repeats.observed
    compared = len(groups.labels)
    reason = groups.difference or EQUAL_OUTPUTS
    low, high = wilson_interval(groups.repeated, compared)
    distinct = float(groups.distinct)
    count = Measurement(
        distinct,
        min(distinct, max(1.0, compared * (1 - high))),
        max(distinct, compared * (1 - low)),
        None,
        "outputs",
        "higher",
        compared,
        reason=reason,
    )
    low, high = wilson_interval(groups.largest, compared)
    share = Measurement(groups.largest, low, high, None, "share of samples", "lower", compared, reason=reason)
    return {"distinct_outputs": count, "largest_repeat": share}
