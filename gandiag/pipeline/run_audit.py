"""Runs one audit: opens the session, embeds every source, measures, probes, and applies the verdict policy."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

from gandiag.config import AuditConfig, ResolvedConfig
from gandiag.pipeline.build_record import build_provenance, build_record
from gandiag.pipeline.engine import (
    ProgressCallback,
    StageTimer,
    merge_results,
    no_progress,
    run_metrics,
)
from gandiag.pipeline.group_inputs import GroupInputs, is_grouped_audit
from gandiag.pipeline.passes import StoredPass, run_passes
from gandiag.pipeline.readings import score_readings
from gandiag.pipeline.run_probes import run_probes
from gandiag.pipeline.session import AuditSession, open_session
from gandiag.pipeline.variation import measure_variation
from gandiag.record import Record, to_json_value
from gandiag.training_logs.analysis import losses
from gandiag.verdict.judge import apply_policy

MessageCallback = Callable[[str], None]


def audit_with_config(
    x: Any,
    resolved: ResolvedConfig,
    *,
    real: Any = None,
    holdout: Any = None,
    progress: ProgressCallback = no_progress,
    on_message: MessageCallback | None = None,
    grouping: GroupInputs | None = None,
) -> Record:
    """`audit` with resolved settings: cheap failures first, then passes, metrics, probes and the verdict."""
    if is_grouped_audit(resolved.config, grouping):
        from gandiag.pipeline.group_audit import audit_groups  # loads what other audits do not need

        inputs = grouping or GroupInputs()
        return audit_groups(x, resolved, inputs, real=real, progress=progress, on_message=on_message)
    timer = StageTimer()
    training = diagnose_log(resolved.config)
    session = open_session(x, resolved.config, real=real, holdout=holdout, timer=timer)
    if on_message is not None:
        on_message(session.summary())
    record = audit_session(session, resolved, timer=timer, progress=progress)
    return apply_policy(dataclasses.replace(record, training=training))


def diagnose_log(config: AuditConfig) -> Any:
    """The record's `training`; None without a log."""
    return None if config.log is None else to_json_value(losses(config.log, seed=config.seed).document)


def audit_session(
    session: AuditSession,
    resolved: ResolvedConfig,
    *,
    timer: StageTimer,
    progress: ProgressCallback,
    stored: Mapping[str, StoredPass] | None = None,
) -> Record:
    """The record of an open session, not yet judged. `stored`: what shards have drawn and embedded."""
    config = resolved.config
    results = run_passes(session, timer, progress, stored)
    outcome = merge_results(
        [
            run_metrics(session.plan.metrics, results, timer=timer, progress=progress),
            *run_probes(session, results, timer=timer, progress=progress),
        ]
    )
    readings = score_readings(session, outcome, timer=timer, progress=progress)
    sections = outcome.sections
    provenance = build_provenance(
        resolved,
        device=session.device,
        feature_fingerprints=session.feature_fingerprints(),
        seconds=timer.seconds,
        inconclusive_reasons=sections.get("doubts", ()),
        notes=[*session.describe_unused_samples(), *sections.get("remarks", ()), *session.cache.notes],
    )
    facts = {"readings": readings, "variation": measure_variation(session)}
    subject = {**session.subject_section(), **{name: fact for name, fact in facts.items() if fact is not None}}
    has_real = session.real is not None
    return build_record(outcome, subject, provenance, limit=config.limit, exhibits=config.exhibits, has_real=has_real)


def describe_audit(x: Any, resolved: ResolvedConfig) -> str:
    """What an audit would do, as text. Draws a few samples; writes nothing."""
    if is_grouped_audit(resolved.config, None):
        from gandiag.pipeline.group_audit import describe_group_audit

        return describe_group_audit(x, without_new_spec(resolved.config), GroupInputs())
    return open_session(x, without_new_spec(resolved.config), real=None, timer=StageTimer()).describe()


def without_new_spec(config: AuditConfig) -> AuditConfig:
    """The settings for a dry run, which replays a loading spec but writes none."""
    is_new = config.spec is not None and not os.path.lexists(config.spec)
    return dataclasses.replace(config, spec=None) if is_new else config
