"""Chooses the sources and metrics of one audit before anything runs, so that --dry-run can show them.

roles     "real"; "fake": the samples that the verdict is about; "fake@<scale>": the same at another latent scale
metrics   the built-in ones for this kind of data, those requested by name, and those of plug-ins
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gandiag.interfaces import Metric, SampleSource
from gandiag.metrics.registry import DEFAULT_METRICS, METRICS, PAIRWISE_METRICS, MetricContext, create_metrics


@dataclass(frozen=True, slots=True)
class AuditPlan:
    """The context, the sources by role, and the metrics of one audit."""

    context: MetricContext
    sources: Mapping[str, SampleSource]
    metrics: tuple[Metric, ...]


def make_audit_plan(
    context: MetricContext, sources: Mapping[str, SampleSource], extra_metrics: Sequence[str] = ()
) -> AuditPlan:
    """A plan with the default metrics and those requested by name.

    PluginError for an unknown name, with close matches.
    """
    names = [*DEFAULT_METRICS, *(name for name in extra_metrics if name not in DEFAULT_METRICS)]
    pairwise = replace(context, n=context.n_neighbors)
    metrics = [
        metric
        for name in names
        for metric in create_metrics(METRICS.get(name), pairwise if name in PAIRWISE_METRICS else context)
    ]
    return AuditPlan(context, sources, tuple(metrics))


def collect_degradation_needs(plan: AuditPlan, results: Mapping[str, Mapping[Any, Any]]) -> dict[str, frozenset[Any]]:
    """Extra features needed when fidelity is low, by role: the score's view at the next degradation level."""
    from gandiag.metrics.collapse_score import CollapseScore
    from gandiag.stats.subset import SubsetSpec

    needs: dict[str, set[Any]] = {}
    for metric in plan.metrics:
        if not isinstance(metric, CollapseScore):
            continue
        view = metric.next_view(results)
        if view is not None:
            needs.setdefault(metric.role, set()).add(SubsetSpec(view, metric.n))
            if SubsetSpec(view, 2 * metric.n) not in results["real"]:
                needs.setdefault("real", set()).add(SubsetSpec(view, 2 * metric.n))
    return {role: frozenset(specs) for role, specs in needs.items()}
