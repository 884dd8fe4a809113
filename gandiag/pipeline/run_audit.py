"""Runs one audit: open the session, embed every source, measure, probe, and apply the policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from gandiag.config import ResolvedConfig
from gandiag.pipeline.build_record import build_provenance, build_record
from gandiag.pipeline.engine import (
    ProgressCallback,
    StageTimer,
    collect_needs,
    merge_results,
    no_progress,
    run_metrics,
    run_sources,
)
from gandiag.pipeline.plan import collect_degradation_needs
from gandiag.pipeline.run_probes import run_probes
from gandiag.pipeline.session import open_session
from gandiag.record import Record, to_json_value
from gandiag.training_logs.analysis import losses
from gandiag.verdict.judge import apply_policy

MessageCallback = Callable[[str], None]


def audit_with_config(
    x: Any,
    resolved: ResolvedConfig,
    *,
    real: Any = None,
    progress: ProgressCallback = no_progress,
    on_message: MessageCallback | None = None,
) -> Record:
    """`audit` with resolved settings: cheap failures first, then the passes, the probes and the judgement."""
    clock = StageTimer()
    training = (
        None
        if resolved.config.log is None
        else to_json_value(losses(resolved.config.log, seed=resolved.config.seed).document)
    )
    study = open_session(x, resolved.config, real=real, timer=clock)
    if on_message is not None:
        on_message(study.summary())
    needs = collect_needs(study.plan.metrics)
    results: dict[str, dict[Any, Any]] = {}
    while needs:  # a second and third round only where low fidelity asks for a look through frosted glass
        streams = {role: (study.batch_factory(role, needs), study.n_samples(role)) for role in needs}
        for role, found in run_sources(needs, streams, timer=clock, progress=progress).items():
            results.setdefault(role, {}).update(found)
        needs = collect_degradation_needs(study.plan, results)
    outcome = merge_results(
        [
            run_metrics(study.plan.metrics, results, timer=clock, progress=progress),
            *run_probes(study, results, timer=clock, progress=progress),
        ]
    )
    sections = outcome.sections
    provenance = build_provenance(
        resolved,
        device=study.device,
        feature_fingerprints=study.feature_fingerprints(),
        seconds=clock.seconds,
        inconclusive_reasons=sections.get("doubts", ()),
        notes=[*sections.get("remarks", ()), *study.cache.notes],
    )
    record = build_record(
        outcome, study.subject_section(), provenance, limit=resolved.config.limit, exhibits=resolved.config.exhibits
    )
    return apply_policy(dataclasses.replace(record, training=training))


def describe_audit(x: Any, resolved: ResolvedConfig) -> str:
    """What an audit would do, as text: subject, assumptions, sources, metrics, features and the estimated time. Draws two samples."""
    return open_session(x, resolved.config, real=None, timer=StageTimer()).describe()
