"""What an audit will measure and where its samples come from: decided before anything runs, so that it can be shown.

    roles     "real"; "fake": the samples that the verdict is about; "fake@<scale>": the same at another latent scale
    metrics   the built-in ones for this kind of data, those asked for by name, those of plug-ins
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gandiag.contracts import Metric, Output, Source
from gandiag.registry import Registry

# Names that --metrics accepts; a factory takes the Question and returns metrics.
METRICS = Registry(
    "metrics",
    {
        "outputs": "gandiag.plan:output_metrics",
        "score": "gandiag.plan:score_metrics",
        "classes": "gandiag.plan:class_metrics",
        "neighbours": "gandiag.metrics.neighbours:Neighbours",
        "frechet": "gandiag.metrics.frechet:Frechet",
        "kid": "gandiag.metrics.kernel:Kernel",
        "vendi": "gandiag.metrics.vendi:Vendi",
        "ndb": "gandiag.metrics.bins:DifferingBins",
        "pairwise": "gandiag.metrics.pairwise:Pairwise",
        "duplicates": "gandiag.metrics.duplicates:Duplicates",
        "memorisation": "gandiag.metrics.memorisation:Memorisation",
        "modes": "gandiag.metrics.modes:Modes",
        "fid": "gandiag.plan:fid_metrics",
        "is": "gandiag.plan:inception_metrics",
    },
)
ALWAYS = ("outputs", "score", "classes", "neighbours", "frechet", "kid", "vendi", "pairwise", "duplicates", "memorisation", "modes")
# Inception or nothing: named as not measured unless asked for, or computed where its weights are at hand.
INCEPTION = {"fid": ("inception-v3-compat", "fid"), "is": ("inception-v3-compat/logits", "inception_score")}


@dataclass(frozen=True, slots=True)
class Question:
    """What a metric factory needs to know. `roles`: every role that generated samples are drawn for, "fake" first."""

    view: str
    n: int
    seed: int
    output: Output
    referenced: bool
    conditional: bool
    class_names: tuple[str, ...] = ()
    roles: tuple[str, ...] = ("fake",)


@dataclass(frozen=True, slots=True)
class Plan:
    """The audit as decided: the question, the sources by role, and the metrics."""

    question: Question
    sources: Mapping[str, Source]
    metrics: tuple[Metric, ...]


def plan_of(question: Question, sources: Mapping[str, Source], asked: Sequence[str] = ()) -> Plan:
    """The default metrics and those asked for by name. PluginError for an unknown name, with the nearest ones."""
    names = [*ALWAYS, *(name for name in asked if name not in ALWAYS)]
    metrics = [metric for name in names for metric in _made(METRICS.get(name), question)]
    return Plan(question, sources, tuple(metrics))


def deeper(plan: Plan, results: Mapping[str, Mapping[Any, Any]]) -> dict[str, frozenset[Any]]:
    """What a second look needs, role by role: the score's view behind frosted glass where fidelity is low, else nothing."""
    from gandiag.metrics.score import VarietyScore
    from gandiag.stats.subset import Kept

    found: dict[str, set[Any]] = {}
    for metric in plan.metrics:
        if not isinstance(metric, VarietyScore):
            continue
        view = metric.deeper(results)
        if view is not None:
            found.setdefault(metric.role, set()).add(Kept(view, metric.n))
            if Kept(view, 2 * metric.n) not in results["real"]:
                found.setdefault("real", set()).add(Kept(view, 2 * metric.n))
    return {role: frozenset(specs) for role, specs in found.items()}


def _made(factory: Any, ask: Question) -> Sequence[Metric]:
    """A metric class is made from view, n, seed and referenced; anything else is a function of the question."""
    if isinstance(factory, type):
        return [factory(ask.view, ask.n, ask.seed, ask.referenced)]
    found: Sequence[Metric] = factory(ask)
    return found


def output_metrics(ask: Question) -> Sequence[Metric]:
    from gandiag.metrics.outputs import OutputNumbers

    return [OutputNumbers(ask.output.range)]


def score_metrics(ask: Question) -> Sequence[Metric]:
    from gandiag.features.aspects import ASPECTS
    from gandiag.metrics.score import Degeneracy, VarietyScore

    span = ask.output.range if ask.output.kind == "image" else None
    if not ask.referenced:
        return [Degeneracy(ask.n, ask.seed, image_range=span)]
    aspects = tuple(ASPECTS) if ask.output.kind == "image" else ()
    scores = [VarietyScore(ask.view, ask.n, ask.seed, role, aspects) for role in ask.roles]
    return [*scores, Degeneracy(ask.n, ask.seed, image_range=span, key="degeneracy")]


def class_metrics(ask: Question) -> Sequence[Metric]:
    from gandiag.metrics.classes import ClassScores

    return [ClassScores(ask.view, ask.n, ask.seed, ask.referenced, ask.class_names)] if ask.conditional else []


def fid_metrics(ask: Question) -> Sequence[Metric]:
    from gandiag.metrics.inception import Fid

    return [Fid(INCEPTION["fid"][0], ask.n, ask.seed, ask.referenced)]


def inception_metrics(ask: Question) -> Sequence[Metric]:
    from gandiag.metrics.inception import InceptionScore

    return [InceptionScore(INCEPTION["is"][0], ask.n, ask.seed, ask.referenced)]
