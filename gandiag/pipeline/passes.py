"""The passes over an audit's sources: every source once, and again with degraded views where fidelity is low."""

from __future__ import annotations

from typing import Any

from gandiag.pipeline.engine import ProgressCallback, StageTimer, collect_needs, run_sources
from gandiag.pipeline.plan import collect_degradation_needs
from gandiag.pipeline.session import AuditSession


def run_passes(session: AuditSession, timer: StageTimer, progress: ProgressCallback) -> dict[str, dict[Any, Any]]:
    """Role -> spec -> result. A second and third pass are made only where low fidelity calls for degraded views."""
    needs = collect_needs(session.plan.metrics)
    results: dict[str, dict[Any, Any]] = {}
    while needs:
        streams = {role: (session.batch_factory(role, needs), session.n_samples(role)) for role in needs}
        for role, by_spec in run_sources(needs, streams, timer=timer, progress=progress).items():
            results.setdefault(role, {}).update(by_spec)
        needs = collect_degradation_needs(session.plan, results)
    return results
