"""Audits variety within groups: opens subject and references, embeds each once, compares, builds the record."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from gandiag.config import AuditConfig, ResolvedConfig
from gandiag.errors import ConfigError
from gandiag.exhibits.groups import GroupThumbnails, group_exhibits
from gandiag.features.extractors import default_features
from gandiag.features.views import FeatureView, embed_batch, make_views
from gandiag.interfaces import MetricResult, OutputSpec
from gandiag.metrics.group_variety import GroupedFeatures, GroupVariety, compare_groups, describe_groups
from gandiag.pipeline.build_record import build_provenance, build_record, build_subject_section
from gandiag.pipeline.engine import ProgressCallback, StageTimer
from gandiag.pipeline.group_inputs import (
    GroupedSource,
    GroupInputs,
    open_grouped_subject,
    open_real_groups,
    open_reference,
    rename_classes,
)
from gandiag.pipeline.readings import find_distinct_readings
from gandiag.record import FACT_REASON, Exhibit, Measurement, Record
from gandiag.training_logs.analysis import losses
from gandiag.verdict.judge import apply_policy

READ_BATCH_SIZE = 64


@dataclasses.dataclass(frozen=True, slots=True)
class GroupSession:
    """The open inputs of a grouped audit. `against` and `real`: references; the first one there is gives the score."""

    config: AuditConfig
    subject: GroupedSource
    against: GroupedSource | None
    real: GroupedSource | None
    view: FeatureView

    @property
    def device(self) -> str:
        sampler = None if self.subject.subject is None else self.subject.subject.sampler
        return "cpu" if sampler is None else str(sampler.device)

    def summary(self) -> str:
        """One line on what will run."""
        parts = [_describe_source("groups", self.subject)]
        parts += [] if self.against is None else [_describe_source("against", self.against)]
        parts += [] if self.real is None else [_describe_source("real", self.real)]
        return f"{'; '.join(parts)}; features {self.view.name}, on {self.device}"


@dataclasses.dataclass(frozen=True, slots=True)
class _Embedded:
    """Features of a source with its groups, and small copies of its images."""

    features: GroupedFeatures
    thumbnails: GroupThumbnails
    n_constant: int = 0


def audit_groups(
    x: Any,
    resolved: ResolvedConfig,
    inputs: GroupInputs,
    *,
    real: Any = None,
    progress: ProgressCallback,
    on_message: Any = None,
) -> Record:
    """The record of a grouped audit. Cost: one pass of the extractor over every sample, and distances within groups."""
    config, timer = resolved.config, StageTimer()
    training = None if config.log is None else losses(config.log, seed=config.seed).document
    with timer.stage("load"):
        session = open_group_session(x, config, inputs, real=real)
    if on_message is not None:
        on_message(session.summary())
    sources = {"fake": session.subject, "against": session.against, "real": session.real}
    embedded: dict[str, _Embedded] = {}
    for role, source in sources.items():
        if source is not None:
            with timer.stage(f"pass: {role}"):
                embedded[role] = _embed(source, session.view, role, progress)
    with timer.stage("measure: groups"):
        variety = _measure(embedded, config.seed)
    with timer.stage("readings"):
        readings = _find_open_readings(session)
    result = _collect_result(session, embedded, variety)
    provenance = build_provenance(
        resolved,
        device=session.device,
        feature_fingerprints={session.view.name: session.view.fingerprint},
        seconds=timer.seconds,
        inconclusive_reasons=(),
        notes=[*session.subject.notes, *variety.remarks],
    )
    subject = _subject_section(session) | ({} if readings is None else {"readings": readings})
    record = build_record(result, subject, provenance, limit=config.limit, exhibits=config.exhibits)
    return apply_policy(dataclasses.replace(record, training=training))


def open_group_session(x: Any, config: AuditConfig, inputs: GroupInputs, *, real: Any = None) -> GroupSession:
    """Open subject and references, so that cheap failures come first."""
    subject = open_grouped_subject(x, config, inputs)
    real_source = config.real if real is None else real
    real_groups = None if real_source is None else open_real_groups(real_source, config, subject)
    if real_groups is not None and real_groups.subject is not None and _is_generator(subject):
        samples = real_groups.subject.samples
        subject = rename_classes(subject, (samples.class_names if samples is not None else None) or ())
    reference = config.against if inputs.against is None else inputs.against
    against = None if reference is None else open_reference(reference, config, inputs, subject)
    if against is not None and _is_generator(against) and real_groups is not None and real_groups.subject is not None:
        samples = real_groups.subject.samples
        against = rename_classes(against, (samples.class_names if samples is not None else None) or ())
    name = config.features or default_features(subject.output)
    (view,) = make_views(
        [name],
        subject.output,
        device=_device_of(subject),
        download=config.download,
        inception_weights=config.inception_weights,
    )
    if against is not None and against.output.kind != subject.output.kind:
        raise ConfigError(
            f"{against.name} makes {against.output.kind}s, and {subject.name} {subject.output.kind}s",
            "compare samples of one kind",
        )
    return GroupSession(config, subject, against, real_groups, view)


def _is_generator(source: GroupedSource) -> bool:
    return source.subject is not None and source.subject.sampler is not None


def _find_open_readings(session: GroupSession) -> dict[str, Any] | None:
    """The other networks that a file may hold, the subject's or the reference's.

    Their groups are not compared, so no verdict stands.
    """
    for source in (session.subject, session.against):
        subject = None if source is None else source.subject
        if source is None or subject is None or subject.sampler is None:
            continue
        scale = session.config.scale if source.scale is None else source.scale
        found = find_distinct_readings(subject.sampler, session.config, scale)
        if found is not None:
            return found
    return None


def _device_of(source: GroupedSource) -> torch.device:
    sampler = None if source.subject is None else source.subject.sampler
    return torch.device("cpu") if sampler is None else sampler.device


def _embed(source: GroupedSource, view: FeatureView, role: str, progress: ProgressCallback) -> _Embedded:
    parts: list[Tensor] = []
    thumbnails = GroupThumbnails(source.output)
    n_done, n_constant, total = 0, 0, len(source.groups)
    for batch in source.start(READ_BATCH_SIZE):
        count = len(batch.indices)
        parts.append(embed_batch(batch, [view], source.output).features[view.name])
        thumbnails.add(batch.samples, source.groups[n_done : n_done + count])
        n_constant += _count_constant(batch.samples, source.output)
        n_done += count
        progress(role, n_done, total)
    return _Embedded(GroupedFeatures(torch.cat(parts), source.groups, source.name), thumbnails, n_constant)


def _count_constant(samples: Tensor, output: OutputSpec) -> int:
    """How many samples have one value everywhere, such as black images."""
    if output.kind == "vector":
        return 0
    low, high = output.range or (0.0, 1.0)
    values = samples.flatten(1)
    return int((values.amax(1) - values.amin(1) <= (high - low) / 256).sum())


def _measure(embedded: dict[str, _Embedded], seed: int) -> GroupVariety:
    """Against the first reference; the real data, where both are given, as a second one."""
    subject = embedded["fake"].features
    references = [role for role in ("against", "real") if role in embedded]
    if not references:
        return describe_groups(subject, seed=seed)
    variety = compare_groups(subject, embedded[references[0]].features, seed=seed)
    variety.document["reference"] = references[0]
    if len(references) == 2:
        variety.document["real"] = _compare_with_real(embedded, seed)
    return variety


def _compare_with_real(embedded: dict[str, _Embedded], seed: int) -> dict[str, Any]:
    """How subject and reference each stand beside the real data."""
    real = embedded["real"].features
    subject, reference = (compare_groups(embedded[role].features, real, seed=seed) for role in ("fake", "against"))
    keys = ("within", "between", "count", "left_out", "collapsed")
    return {
        **{key: subject.document[key] for key in keys},
        "reference_within": reference.document["within"],
    }


def _collect_result(session: GroupSession, embedded: dict[str, _Embedded], variety: GroupVariety) -> MetricResult:
    exhibits: tuple[Exhibit, ...] = ()
    if session.config.exhibits:
        reference = next((embedded[role] for role in ("against", "real") if role in embedded), None)
        exhibits = group_exhibits(
            variety.document["rows"], embedded["fake"].thumbnails, None if reference is None else reference.thumbnails
        )
    sections = {"score": variety.score, "groups": variety.document}
    constant = embedded["fake"].n_constant / len(session.subject.groups)
    measurement = Measurement(constant, unit="share", better="lower", n=len(session.subject.groups), reason=FACT_REASON)
    return MetricResult({**variety.measurements, "constant_samples": measurement}, sections, exhibits)


def _subject_section(session: GroupSession) -> dict[str, Any]:
    source = session.subject
    subject = source.subject
    assert subject is not None
    section = build_subject_section(
        subject.facts,
        source.output,
        latent=None if subject.sampler is None else subject.sampler.latent,
        scale=source.scale or session.config.scale,
        trained_scale=subject.trained_scale,
        assumptions=source.assumptions,
        classes=subject.classes,
        notes=subject.notes,
    )
    against = None if session.against is None else session.against.name
    return section | {"against": against}


def _describe_source(title: str, source: GroupedSource) -> str:
    sizes = Counter(source.groups)
    low, high = min(sizes.values()), max(sizes.values())
    each = f"{low}" if low == high else f"{low} to {high}"
    return f"{title}: {len(sizes):,} of {each} samples from {source.name}"


def describe_group_audit(x: Any, config: AuditConfig, inputs: GroupInputs) -> str:
    """The plan as text, for --dry-run."""
    session = open_group_session(x, config, inputs)
    rows = [
        ("subject", f"{session.subject.name}: {session.subject.output.kind} {session.subject.output.shape}"),
        *(("note", note) for note in session.subject.notes),
        ("features", f"{session.view.name} ({session.view.fingerprint})"),
        ("plan", session.summary()),
    ]
    return "\n".join(f"{name:<10}{text}" for name, text in rows)
