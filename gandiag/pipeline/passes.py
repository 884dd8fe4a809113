"""The passes over an audit's sources: every source once, and again with degraded views where fidelity is low."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from gandiag.pipeline.engine import BatchFactory, ProgressCallback, StageTimer, collect_needs, run_sources
from gandiag.pipeline.plan import collect_degradation_needs
from gandiag.pipeline.session import AuditSession


class StoredPass(Protocol):
    """What shards have stored of one role; `batch_factory` is None where something must be computed anew."""

    def batch_factory(self, session: AuditSession, needs: frozenset[Any]) -> BatchFactory | None: ...


def run_passes(
    session: AuditSession,
    timer: StageTimer,
    progress: ProgressCallback,
    stored: Mapping[str, StoredPass] | None = None,
) -> dict[str, dict[Any, Any]]:
    """Role -> spec -> result. A second and third pass are made only where low fidelity calls for degraded views.

    `stored`: by role, batches that shards have already drawn and embedded.
    """
    needs = collect_needs(session.plan.metrics)
    results: dict[str, dict[Any, Any]] = {}
    while needs:
        streams = {role: (_start_role(session, role, needs, stored or {}), session.n_samples(role)) for role in needs}
        for role, by_spec in run_sources(needs, streams, timer=timer, progress=progress).items():
            results.setdefault(role, {}).update(by_spec)
        needs = collect_degradation_needs(session.plan, results)
    return results


def _start_role(
    session: AuditSession,
    role: str,
    needs: Mapping[str, frozenset[Any]],
    stored: Mapping[str, StoredPass],
) -> BatchFactory:
    factory = stored[role].batch_factory(session, needs[role]) if role in stored else None
    return factory or session.batch_factory(role, needs)
