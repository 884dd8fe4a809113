"""The collapse score as a metric of the engine, computed by `score.estimator` and `score.multi_view`.

Without real data the score is that of *degeneracy* (`gandiag.metrics.degeneracy`). It is a lower bound on collapse,
since no function of the generator alone can show that modes of the data are missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from gandiag.features.image_statistics import ASPECTS
from gandiag.features.view_names import DEGRADATION_LEVELS
from gandiag.interfaces import Estimate, Metric, MetricResult, Needs, OutputSpec
from gandiag.metrics.degeneracy import Degeneracy
from gandiag.metrics.distinct_rows import estimate_repeated_rows, has_repeated_rows
from gandiag.metrics.registry import MetricContext
from gandiag.metrics.score.estimator import MIN_SAMPLES, DiversityEstimate, estimate_diversity_loss
from gandiag.metrics.score.multi_view import estimate_multi_view_loss, has_low_fidelity
from gandiag.metrics.score.transformed_images import FoundTransformation, find_transformation
from gandiag.metrics.structure_gap import count_images
from gandiag.metrics.table_score import build_table_section, estimate_table_losses, include_table_losses
from gandiag.record import Measurement, Score
from gandiag.sampling.preprocessing import to_unit_range
from gandiag.sampling.tables.encoder import TableEncoder
from gandiag.stats.subset import SampleSubset, SubsetSpec


@dataclass(frozen=True, slots=True)
class CollapseScore:
    """Score and profile against real data.

    For images also the aspects, one view each; the worst of them is the headline.

    `aspects`: cheap views beside the main one; none for vectors and series. Degraded versions of the main view
    ("imagenet+1") are used where the results hold them. `role` "fake" writes the record's score; any other role, a
    measurement. `encoder`: of tables, whose columns and pairs are scored too; the worst speaks. `n_drawn`: samples of
    which the n are a subset, where there are more. `output`: of images, some of which are kept to tell a transformation
    of all of them from lost variety.
    """

    view: str
    n: int
    seed: int = 0
    role: str = "fake"
    aspects: tuple[str, ...] = ()
    encoder: TableEncoder | None = None
    n_drawn: int = 0
    output: OutputSpec | None = None

    @property
    def key(self) -> str:
        return "score" if self.role == "fake" else "score@" + self.role.partition("@")[2]

    def needs(self) -> Needs:
        views = (self.view, *self.aspects)
        real = {SubsetSpec(view, 2 * self.n) for view in views}
        fake = {SubsetSpec(view, self.n) for view in views}
        if self.output is not None:
            n_images = count_images(self.output, self.n)
            real.add(SubsetSpec("samples", 2 * n_images))
            fake.add(SubsetSpec("samples", n_images))
        return {"real": frozenset(real), self.role: frozenset(fake)}

    def measure(self, results: Any) -> MetricResult:
        real, fake = self._subsets(results, self.view)
        if min(len(fake.indices), len(real.indices) // 2) < MIN_SAMPLES:
            return _too_few_samples(self.key, real, fake)
        names = self._available_views(results) if self.aspects else [self.view]
        subsets = {name: self._subsets(results, name) for name in names}
        found = self._find_transformation(results)
        estimate, aspects = estimate_loss(
            {name: pair[0].values for name, pair in subsets.items()},
            {name: pair[1].values for name, pair in subsets.items()},
            seed=self.seed,
            has_aspects=bool(self.aspects),
            inject=self.role == "fake",
            transformed=None if found is None else {name: (found.real[name], found.fake[name]) for name in found.real},
        )
        table: dict[str, Any] = {}
        if self.encoder is not None:
            losses = estimate_table_losses(self.encoder, real.values, fake.values)
            table = build_table_section(self.encoder, estimate, losses)
            estimate = include_table_losses(estimate, losses)
        score = estimate.score
        measurement = Measurement(
            score.value, score.low, score.high, floor=0.0, unit="share", better="lower", n=estimate.n
        )
        if self.role != "fake":
            return MetricResult({self.key: measurement})
        sections = score_sections(
            estimate, n_real=len(real.indices), n_fake=len(fake.indices), has_aspects=bool(self.aspects)
        )
        if self.n_drawn > self.n:
            sections["score"] = replace(sections["score"], n_drawn=self.n_drawn)
            sections["remarks"].append(
                f"the score and all comparisons of pairs are of {self.n:,} of the {self.n_drawn:,} samples, "
                "a subset by seed (--neighbours-max)"
            )
        sections["aspects"] = {name: asdict(loss) for name, loss in aspects.items()}
        sections["table"] = table
        measurements = {self.key: measurement}
        if self.output is not None:
            measurements |= measure_transformation(found)
        return MetricResult(measurements, sections)

    def _find_transformation(self, results: Any) -> FoundTransformation | None:
        """The transformation that explains how the generated images differ, if one does."""
        if self.output is None:
            return None
        n_images = count_images(self.output, self.n)
        real = results["real"][SubsetSpec("samples", 2 * n_images)].values
        fake = results[self.role][SubsetSpec("samples", n_images)].values
        return find_transformation(to_unit_range(real, self.output), to_unit_range(fake, self.output), seed=self.seed)

    def next_view(self, results: Any) -> str | None:
        """The next degradation level that this score needs.

        None where fidelity is high enough or there is no further level.
        """
        if not self.aspects:
            return None
        levels = [level for level in DEGRADATION_LEVELS if self._fake_spec(level) in results[self.role]]
        level = max(levels, default=0)
        real, fake = self._subsets(results, degraded_view_name(self.view, level))
        is_too_small = min(len(fake.indices), len(real.indices) // 2) < MIN_SAMPLES
        if level == DEGRADATION_LEVELS[-1] or is_too_small:
            return None
        if not has_low_fidelity(real.values, fake.values, seed=self.seed):
            return None
        return degraded_view_name(self.view, level + 1)

    def _fake_spec(self, level: int) -> SubsetSpec:
        return SubsetSpec(degraded_view_name(self.view, level), self.n)

    def _subsets(self, results: Any, view: str) -> tuple[SampleSubset, SampleSubset]:
        """Real and generated samples in a view."""
        return results["real"][SubsetSpec(view, 2 * self.n)], results[self.role][SubsetSpec(view, self.n)]

    def _available_views(self, results: Any) -> list[str]:
        """The main view at every degradation level that the results hold, and the aspects."""
        names = [degraded_view_name(self.view, level) for level in DEGRADATION_LEVELS]
        available = [
            name
            for name in names
            if SubsetSpec(name, self.n) in results[self.role] and SubsetSpec(name, 2 * self.n) in results["real"]
        ]
        return [*available, *self.aspects]


def degraded_view_name(view: str, level: int) -> str:
    """The name of a view at a degradation level."""
    return f"{view}+{level}" if level else view


def estimate_loss(
    real: Mapping[str, Tensor],
    fake: Mapping[str, Tensor],
    *,
    seed: int,
    has_aspects: bool,
    inject: bool,
    replicates: int = 20,
    transformed: Mapping[str, tuple[Tensor, Tensor]] | None = None,
) -> tuple[DiversityEstimate, dict[str, Estimate]]:
    """The loss over views of real (N, D) and generated (M, D) samples, and of each aspect where there are aspects."""
    if has_aspects:
        return estimate_multi_view_loss(
            real, fake, seed=seed, replicates=replicates, inject=inject, transformed=transformed
        )
    (view,) = real
    if has_repeated_rows(real[view], fake[view]):
        return estimate_repeated_rows(real[view], fake[view], seed=seed, replicates=replicates), {}
    return estimate_diversity_loss(real[view], fake[view], seed=seed, replicates=replicates, inject=inject), {}


RATIO_KEYS = {
    "brightness": "brightness_ratio",
    "contrast": "contrast_ratio",
    "color_cast": "color_cast",
    "fine_detail": "detail_ratio",
}


def measure_transformation(found: FoundTransformation | None) -> dict[str, Measurement]:
    """What a transformation of all images changes; and the share of their difference that it explains."""
    if found is None:
        reason = "no smooth transformation of all images explains how generated and real ones differ"
        return {key: Measurement.missing(reason) for key in (*RATIO_KEYS.values(), "transformation")}
    measurements = {
        RATIO_KEYS[name]: Measurement(
            ratio.value, ratio.low, ratio.high, found.floor[name], "generated over real", "neither", found.n
        )
        for name, ratio in found.ratios.items()
    }
    share = found.explained
    explained = Measurement(
        share.value, share.low, share.high, 0.0, "total variation", "lower", found.n, reason=found.kind or None
    )
    return {**measurements, "transformation": explained}


def score_sections(estimate: DiversityEstimate, *, n_real: int, n_fake: int, has_aspects: bool) -> dict[str, Any]:
    """What a record says of an estimate: score, profile, doubts and remarks."""
    score = Score(
        **asdict(estimate.score),
        power=estimate.power,
        n_fake=n_fake,
        n_real=n_real,
        replicates=estimate.replicates,
        injected=tuple(asdict(entry) for entry in estimate.injected),
        off_manifold=None if has_aspects else estimate.profile["off_manifold"].value,
    )
    notes = []
    if n_real < 2 * n_fake:
        notes.append(
            f"{n_real:,} real samples are fewer than twice the {n_fake:,} generated ones, "
            f"so only {estimate.n:,} of each were compared"
        )
    return {
        "score": score,
        "profile": {name: asdict(loss) for name, loss in estimate.profile.items()},
        "doubts": list(estimate.inconclusive_reasons),
        "remarks": notes,
    }


def _too_few_samples(key: str, real: SampleSubset, fake: SampleSubset) -> MetricResult:
    n_real, n_fake = len(real.indices), len(fake.indices)
    reason = (
        f"{n_fake:,} generated and {n_real:,} real samples are too few for a score: "
        f"it needs {MIN_SAMPLES} and {2 * MIN_SAMPLES}"
    )
    score = Score(None, None, None, n_fake=n_fake, n_real=n_real)
    sections = {"score": score, "doubts": [reason]} if key == "score" else {}
    return MetricResult({key: Measurement.missing(reason)}, sections)


def create_score_metrics(context: MetricContext) -> Sequence[Metric]:
    """The factory of "score": one score per role and the degeneracy; without real data the degeneracy is the score."""
    if not context.referenced:
        return [Degeneracy(context.n, context.seed, context.output, context.is_network)]
    aspects = tuple(ASPECTS) if context.output.kind == "image" else ()
    scores = [
        CollapseScore(
            context.view,
            context.n_neighbors,
            context.seed,
            role,
            aspects,
            context.encoder,
            context.n,
            context.output if aspects and role == "fake" else None,
        )
        for role in context.roles
    ]
    return [*scores, Degeneracy(context.n, context.seed, context.output, context.is_network, key="degeneracy")]
