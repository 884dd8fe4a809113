"""What an audit will measure and where its samples come from: decided before anything runs, so that it can be shown.

    roles     "real"; "fake": the samples that the verdict is about; "fake@<scale>": the same at another latent scale
    metrics   the built-in ones for this kind of data, those asked for by name, those of plug-ins
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gandiag.contracts import Metric, Output, Source
from gandiag.registry import Registry

# Features that the score, neighbours and clusters use by default.
DEFAULT_VIEW = {"image": "imagenet", "vector": "identity", "series": "series"}

# Names that --metrics accepts; a factory takes the Question and returns metrics.
METRICS = Registry(
    "metrics",
    {
        "score": "gandiag.plan:score_metrics",
        "classes": "gandiag.plan:class_metrics",
        "neighbours": "gandiag.plan:neighbour_metrics",
        "frechet": "gandiag.plan:frechet_metrics",
        "kid": "gandiag.plan:kernel_metrics",
        "vendi": "gandiag.plan:vendi_metrics",
        "pairwise": "gandiag.plan:pairwise_metrics",
        "duplicates": "gandiag.plan:duplicate_metrics",
        "memorisation": "gandiag.plan:memorisation_metrics",
        "modes": "gandiag.plan:mode_metrics",
        "fid": "gandiag.plan:fid_metrics",
        "is": "gandiag.plan:inception_metrics",
    },
)
ALWAYS = ("score", "classes", "neighbours", "frechet", "kid", "vendi", "pairwise", "duplicates", "memorisation", "modes")
ON_REQUEST = ("fid", "is")


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


Factory = Callable[[Question], Sequence[Metric]]


@dataclass(frozen=True, slots=True)
class Plan:
    """The audit as decided: the question, the sources by role, and the metrics."""

    question: Question
    sources: Mapping[str, Source]
    metrics: tuple[Metric, ...]


def plan_of(question: Question, sources: Mapping[str, Source], asked: Sequence[str] = ()) -> Plan:
    """The default metrics and those asked for by name. PluginError for an unknown name, with the nearest ones."""
    names = [*ALWAYS, *(name for name in asked if name not in ALWAYS)]
    metrics = [metric for name in names for metric in METRICS.get(name)(question)]
    return Plan(question, sources, tuple(metrics))


def score_metrics(ask: Question) -> Sequence[Metric]:
    from gandiag.metrics.score import Degeneracy, VarietyScore

    if not ask.referenced:
        return [Degeneracy(ask.n, ask.seed, image_range=ask.output.range if ask.output.kind == "image" else None)]
    return [VarietyScore(ask.view, ask.n, ask.seed, role) for role in ask.roles]


def class_metrics(ask: Question) -> Sequence[Metric]:
    from gandiag.metrics.classes import ClassScores

    return [ClassScores(ask.view, ask.n, ask.seed, ask.referenced, ask.class_names)] if ask.conditional else []
