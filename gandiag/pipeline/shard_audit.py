"""One audit in parts: every shard draws and embeds its batches, and the merge makes the record of the whole.

Shards hold the embedded batches, which the merge gives to the accumulators in the order of one process: the same
floating-point operations, so the same bits. All that is not a pass (probes, readings, copies, metrics) runs once, in
the merge, which opens the checkpoint and the real data again for it. The few samples of the probes cost seconds;
running them in a shard would need the results of all shards there.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from gandiag.config import AuditConfig, ResolvedConfig, option_name
from gandiag.errors import ConfigError, LoadError, RecordError
from gandiag.features.views import embed_batch, noise_seed_for
from gandiag.interfaces import Batch
from gandiag.pipeline.build_record import REPORTED_PACKAGES, package_version
from gandiag.pipeline.engine import BatchFactory, ProgressCallback, StageTimer, collect_needs, required_views
from gandiag.pipeline.group_inputs import is_grouped_audit
from gandiag.pipeline.run_audit import MessageCallback, audit_session, diagnose_log
from gandiag.pipeline.session import AuditSession, open_session
from gandiag.pipeline.shard_files import (
    ShardHeader,
    check_shard_set,
    describe_difference,
    read_shard_batches,
    read_shard_header,
    write_shard_file,
)
from gandiag.record import Record, to_json_value
from gandiag.sampling.shards import Shard
from gandiag.untrusted.settings_files import describe_danger, require_type
from gandiag.verdict.judge import apply_policy

_PATHS = ("real", "holdout", "log", "spec")


# one shard


def audit_shard(
    subject: str,
    resolved: ResolvedConfig,
    shard: Shard,
    path: str,
    *,
    progress: ProgressCallback,
    on_message: MessageCallback,
) -> None:
    """Draw and embed the batches of one shard, and write them to `path`."""
    require_divisible(resolved.config)
    session = open_session(subject, resolved.config)
    n = session.n_samples("fake")
    if shard.count > n:
        raise ConfigError(
            f"--shard is {shard}, and there are only {n} samples to divide",
            f"choose at most {n} shards, or a larger -n",
        )
    header = ShardHeader(path, shard, subject, _settings_document(resolved), identify_audit(session))
    needs = _needed_roles(session)
    batches = {role: _draw_batches(session, role, needs, shard, progress) for role in needs}
    if not any(batches.values()):
        on_message(
            f"shard {shard} has no work: the {n:,} samples are one batch for each {session.batch_size:,}; "
            "a smaller --batch-size divides them further"
        )
    write_shard_file(header, batches, {role: _stored_views(needs[role]) for role in needs})


def require_divisible(config: AuditConfig) -> None:
    """ConfigError for audits that cannot be divided."""
    if is_grouped_audit(config, None):
        raise ConfigError(
            "--shard divides audits of one generator or set, not of groups",
            "leave out --shard, or --group-by, --against and --per-class",
        )


def _needed_roles(session: AuditSession) -> dict[str, frozenset[Any]]:
    return {role: specs for role, specs in collect_needs(session.plan.metrics).items() if session.n_samples(role)}


def _stored_views(specs: frozenset[Any]) -> tuple[str, ...]:
    return tuple(sorted({spec.view for spec in specs}))


def _draw_batches(
    session: AuditSession,
    role: str,
    needs: Mapping[str, frozenset[Any]],
    shard: Shard,
    progress: ProgressCallback,
) -> list[Batch]:
    total, n_done, batches = -(-session.n_samples(role) // shard.count), 0, []
    for batch in session.batch_factory(role, needs, shard)():
        batches.append(batch)
        n_done += len(batch.indices)
        progress(role, min(n_done, total), total)
    return batches


def _settings_document(resolved: ResolvedConfig) -> dict[str, Any]:
    names = [entry.name for entry in dataclasses.fields(AuditConfig)]
    return {
        name: {"value": to_json_value(getattr(resolved.config, name)), "source": resolved.sources.get(name, "default")}
        for name in names
    }


def identify_audit(session: AuditSession) -> dict[str, Any]:
    """Facts that must be the same in every shard and at the merge, as plain data."""
    real, facts = session.real, session.subject.facts
    identity = {
        "versions": {name: package_version(name) for name in REPORTED_PACKAGES},
        "the hash of the subject": facts.get("sha256"),
        "the hash of the real data": None if real is None else real.fingerprint(session.n_samples("real")),
        "the device": session.device.partition(":")[0],
        "the size of a batch": session.batch_size,
        "the sources": {
            role: [source.scale, source.bn, source.n] for role, source in sorted(session.plan.sources.items())
        },
        "the features": session.feature_fingerprints(),
        "the metrics": [metric.key for metric in session.plan.metrics],
    }
    document: dict[str, Any] = to_json_value(identity)
    return document


# the merge


def merge_shards(
    paths: Sequence[str],
    own: Mapping[str, Any],
    *,
    progress: ProgressCallback,
    on_message: MessageCallback,
) -> Record:
    """The record that one process would have made, from the files of all shards.

    `own`: settings that run code, reach the network or read other files, as given with this call; a file's word is not
    enough for them. RecordError where shards are missing, doubled, damaged or of another audit.
    """
    headers = [read_shard_header(path) for path in paths]
    check_shard_set(headers)
    first = headers[0]
    resolved = _read_settings(first, _agree_to_network(first, own))
    require_divisible(resolved.config)
    _require_inputs(first, resolved.config)
    timer = StageTimer()
    training = diagnose_log(resolved.config)
    session = open_session(first.subject, resolved.config, timer=timer)
    _require_same_inputs(first, identify_audit(session))
    on_message(f"{len(headers)} shards; {session.summary()}")
    with timer.stage("shards"):
        stored = _collect_batches(headers, session)
    record = audit_session(session, resolved, timer=timer, progress=progress, stored=stored)
    return apply_policy(dataclasses.replace(record, training=training))


@dataclass(frozen=True, slots=True)
class _StoredRole:
    """The batches of one role, in the order of one process. `views`: what was stored of each."""

    role: str
    batches: Sequence[Batch]
    views: frozenset[str]

    def batch_factory(self, session: AuditSession, needs: frozenset[Any]) -> BatchFactory | None:
        """The stored batches, with views added that can be computed from the stored samples."""
        missing = {spec.view for spec in needs} - self.views
        if missing and "samples" not in self.views:
            return None
        views = session.get_views(required_views(needs))
        output, noise_seed = session.subject.output, noise_seed_for(self.role)
        return lambda: map(partial(embed_batch, views=views, output=output, noise_seed=noise_seed), self.batches)


def _collect_batches(headers: Sequence[ShardHeader], session: AuditSession) -> dict[str, _StoredRole]:
    """Role -> its batches. RecordError where they are not those of this audit."""
    needs = _needed_roles(session)
    count = headers[0].shard.count
    parts = {header.shard.number: read_shard_batches(header) for header in headers}
    stored = {}
    for role in needs:
        lists = [parts[number].get(role, []) for number in range(1, count + 1)]
        batches = [entry[at] for at in range(max(map(len, lists))) for entry in lists if at < len(entry)]
        views = frozenset(_stored_views(needs[role]))
        _require_complete(session, role, batches, views)
        stored[role] = _StoredRole(role, batches, views)
    return stored


def _require_complete(session: AuditSession, role: str, batches: Sequence[Batch], views: frozenset[str]) -> None:
    expected = _expected_indices(session, role)
    indices = torch.cat([batch.indices for batch in batches]) if batches else torch.empty(0, dtype=torch.int64)
    if torch.equal(indices, expected) and all(_fits(session, batch, views) for batch in batches):
        return
    raise RecordError(
        f"the shards do not hold the {len(expected):,} samples of the source {role!r}", "make all shards again"
    )


def _fits(session: AuditSession, batch: Batch, views: frozenset[str]) -> bool:
    """Whether a batch has the shapes and types of this audit."""
    n, shape = len(batch.indices), session.subject.output.shape
    expected = {view.name: (n, view.dim) for view in session.get_views(sorted(views - {"samples"}))}
    found = {name: tuple(values.shape) for name, values in batch.features.items() if values.is_floating_point()}
    has_samples = tuple(batch.samples.shape) == (n, *shape) and batch.samples.dtype == torch.float32
    return found == expected and (has_samples or "samples" not in views)


def _expected_indices(session: AuditSession, role: str) -> torch.Tensor:
    n = session.n_samples(role)
    samples = session.real if role == "real" else session.subject.samples
    return torch.arange(n) if samples is None else samples.keys[samples.choose(n)]


# what a file may decide


def _read_settings(header: ShardHeader, own: Mapping[str, Any]) -> ResolvedConfig:
    """The settings of the shards. ConfigError for one that only the user may set and that this call does not repeat."""
    fields = {entry.name: entry for entry in dataclasses.fields(AuditConfig)}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, entry in header.settings.items():
        if name not in fields or not isinstance(entry, dict) or not isinstance(entry.get("source"), str):
            raise RecordError(f"{header.path} holds the unknown setting {name[:40]!r}", "make all shards again")
        value = tuple(entry["value"]) if isinstance(entry.get("value"), list) else entry.get("value")
        require_type(fields[name], value, f"{header.path}: {name}")
        values[name], sources[name] = value, entry["source"]
    config = AuditConfig(**values)
    for name, field in fields.items():
        _require_repeated(name, getattr(config, name), field.default, own.get(name))
    return ResolvedConfig(config, sources)


def _agree_to_network(header: ShardHeader, own: Mapping[str, Any]) -> Mapping[str, Any]:
    """The user's own settings, less the --download that lets a subject be read from the Hub. ConfigError without it."""
    if not header.subject.startswith("hf:"):
        return own
    if not own.get("download"):
        raise ConfigError(
            f"the shards are of {header.subject}, which reaches the network: no file may decide that",
            "repeat it if you want it: gandiag merge … --download",
        )
    is_setting = header.settings.get("download", {}).get("value") is True
    return own if is_setting else {name: value for name, value in own.items() if name != "download"}


def _require_repeated(name: str, value: Any, default: Any, given: Any) -> None:
    danger = "" if value == default else describe_danger(name, value)
    if danger and given != value:
        shown = "" if value is True else f" {','.join(value) if isinstance(value, tuple) else value}"
        raise ConfigError(
            f"the shards were made with {option_name(name)}{shown}, which {danger}: no file may decide that",
            f"repeat it if you want it: gandiag merge … {option_name(name)}{shown}",
        )
    if given is not None and given != value:
        raise ConfigError(
            f"the shards were made without {option_name(name)} {given}", "leave it out, or make them again"
        )


def _require_inputs(header: ShardHeader, config: AuditConfig) -> None:
    """LoadError where the subject or the data of the shards is not here."""
    for path in (header.subject, *(getattr(config, name) for name in _PATHS)):
        if path is not None and not os.path.lexists(path) and not path.startswith("hf:"):
            raise LoadError(
                f"{path}, of which {header.path} is a shard, does not exist here",
                "merge in the folder in which the shards were made: the checkpoint and the data are opened again",
            )


def _require_same_inputs(header: ShardHeader, identity: Mapping[str, Any]) -> None:
    """RecordError where the subject, the data or the programs have changed since the shards were made."""
    found = {**identity["versions"], **identity}
    expected = {**header.identity["versions"], **header.identity}
    difference = describe_difference(expected, found)
    if difference is not None:
        what, theirs, ours = difference
        raise RecordError(
            f"{header.path} does not belong to what is audited here: {what} is {ours}, and was {theirs}",
            "merge where the shards were made, or make them again",
        )
