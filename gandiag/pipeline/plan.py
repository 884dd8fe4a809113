"""What an audit will measure and where its samples come from: decided before anything runs, so that it can be shown.

roles     "real"; "fake": the samples that the verdict is about; "fake@<scale>": the same at another latent scale
metrics   the built-in ones for this kind of data, those asked for by name, those of plug-ins
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gandiag.interfaces import Metric, OutputSpec, SampleSource
from gandiag.registry import Registry

# Names that --metrics accepts; a factory takes the Question and returns metrics.
METRICS = Registry(
    "metrics",
    {
        "outputs": "gandiag.pipeline.plan:output_metrics",
        "score": "gandiag.pipeline.plan:score_metrics",
        "classes": "gandiag.pipeline.plan:class_metrics",
        "neighbours": "gandiag.metrics.precision_recall:Prdc",
        "frechet": "gandiag.metrics.frechet:FrechetDistance",
        "kid": "gandiag.metrics.kernel_distance:Kid",
        "vendi": "gandiag.metrics.vendi:Vendi",
        "ndb": "gandiag.metrics.ndb_bins:Ndb",
        "pairwise": "gandiag.metrics.pairwise:PairwiseDistances",
        "duplicates": "gandiag.metrics.duplicates:Duplicates",
        "memorisation": "gandiag.metrics.memorization:Memorization",
        "modes": "gandiag.metrics.modes:ModeCoverage",
        "fid": "gandiag.pipeline.plan:fid_metrics",
        "is": "gandiag.pipeline.plan:inception_metrics",
    },
)
DEFAULT_METRICS = (
    "outputs",
    "score",
    "classes",
    "neighbours",
    "frechet",
    "kid",
    "vendi",
    "pairwise",
    "duplicates",
    "memorisation",
    "modes",
)
# Inception or nothing: named as not measured unless asked for, or computed where its weights are at hand.
INCEPTION_METRICS = {"fid": ("inception-v3-compat", "fid"), "is": ("inception-v3-compat/logits", "inception_score")}


@dataclass(frozen=True, slots=True)
class MetricContext:
    """What a metric factory needs to know. `roles`: every role that generated samples are drawn for, "fake" first."""

    view: str
    n: int
    seed: int
    output: OutputSpec
    referenced: bool
    is_conditional: bool
    class_names: tuple[str, ...] = ()
    roles: tuple[str, ...] = ("fake",)


@dataclass(frozen=True, slots=True)
class AuditPlan:
    """The audit as decided: the question, the sources by role, and the metrics."""

    context: MetricContext
    sources: Mapping[str, SampleSource]
    metrics: tuple[Metric, ...]


def make_audit_plan(
    context: MetricContext, sources: Mapping[str, SampleSource], extra_metrics: Sequence[str] = ()
) -> AuditPlan:
    """The default metrics and those asked for by name. PluginError for an unknown name, with the nearest ones."""
    names = [*DEFAULT_METRICS, *(name for name in extra_metrics if name not in DEFAULT_METRICS)]
    metrics = [metric for name in names for metric in _made(METRICS.get(name), context)]
    return AuditPlan(context, sources, tuple(metrics))


def collect_degradation_needs(plan: AuditPlan, results: Mapping[str, Mapping[Any, Any]]) -> dict[str, frozenset[Any]]:
    """What a second look needs, role by role: the score's view behind frosted glass where fidelity is low, else nothing."""
    from gandiag.metrics.collapse_score import CollapseScore
    from gandiag.stats.subset import SubsetSpec

    found: dict[str, set[Any]] = {}
    for metric in plan.metrics:
        if not isinstance(metric, CollapseScore):
            continue
        view = metric.next_view(results)
        if view is not None:
            found.setdefault(metric.role, set()).add(SubsetSpec(view, metric.n))
            if SubsetSpec(view, 2 * metric.n) not in results["real"]:
                found.setdefault("real", set()).add(SubsetSpec(view, 2 * metric.n))
    return {role: frozenset(specs) for role, specs in found.items()}


def _made(factory: Any, ask: MetricContext) -> Sequence[Metric]:
    """A metric class is made from view, n, seed and referenced; anything else is a function of the question."""
    if isinstance(factory, type):
        return [factory(ask.view, ask.n, ask.seed, ask.referenced)]
    found: Sequence[Metric] = factory(ask)
    return found


def output_metrics(context: MetricContext) -> Sequence[Metric]:
    from gandiag.metrics.outputs import OutputStatistics

    return [OutputStatistics(context.output.range)]


def score_metrics(context: MetricContext) -> Sequence[Metric]:
    from gandiag.features.image_statistics import ASPECTS
    from gandiag.metrics.collapse_score import CollapseScore, Degeneracy

    span = context.output.range if context.output.kind == "image" else None
    if not context.referenced:
        return [Degeneracy(context.n, context.seed, image_range=span)]
    aspects = tuple(ASPECTS) if context.output.kind == "image" else ()
    scores = [CollapseScore(context.view, context.n, context.seed, role, aspects) for role in context.roles]
    return [*scores, Degeneracy(context.n, context.seed, image_range=span, key="degeneracy")]


def class_metrics(context: MetricContext) -> Sequence[Metric]:
    from gandiag.metrics.per_class import ClassScores

    return (
        [ClassScores(context.view, context.n, context.seed, context.referenced, context.class_names)]
        if context.is_conditional
        else []
    )


def fid_metrics(context: MetricContext) -> Sequence[Metric]:
    from gandiag.metrics.inception import Fid

    return [Fid(INCEPTION_METRICS["fid"][0], context.n, context.seed, context.referenced)]


def inception_metrics(context: MetricContext) -> Sequence[Metric]:
    from gandiag.metrics.inception import InceptionScore

    return [InceptionScore(INCEPTION_METRICS["is"][0], context.n, context.seed, context.referenced)]
