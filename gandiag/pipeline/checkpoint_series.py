"""Audits every checkpoint of a training run and relates the scores to the training log (schema gandiag.run/1).

Records are kept in the folder's `gandiag-audits/`, one per checkpoint. A record with the same file hash, settings and
version is reused, so an interrupted pass continues where it stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from gandiag import __version__
from gandiag.checkpoints.file_type import WEIGHT_SUFFIXES
from gandiag.checkpoints.key_names import parse_role
from gandiag.config import ResolvedConfig
from gandiag.errors import ExitCode, GandiagError, RecordError, SourceError
from gandiag.pipeline.engine import ProgressCallback, no_progress
from gandiag.pipeline.run_audit import MessageCallback, audit_with_config
from gandiag.pipeline.subject import is_sample_path
from gandiag.record import Record, to_json_value, write_atomically
from gandiag.sampling.group_names import choose_sample_array
from gandiag.sampling.sources import open_samples
from gandiag.training_logs.analysis import losses
from gandiag.verdict.policy import verdict_exit_code
from gandiag.verdict.series_advice import advise_checkpoint

SCHEMA = "gandiag.run/1"
RECORD_FOLDER = "gandiag-audits"
EVENT_TEXT = {
    "oscillating": "the losses started to oscillate",
    "diverging": "the losses started to diverge",
    "mode_hopping": "bursts appeared in the losses",
    "discriminator_wins": "D started to dominate",
    "generator_wins": "G started to dominate",
    "failed": "the losses became NaN or infinite",
    "discriminator_at_chance": "D fell to chance",
    "drifting": "the losses started to drift",
    "spiking": "a loss started to spike",
    "stepped": "the level of the losses stepped",
}
DIGITS_PATTERN = re.compile(r"\d+")
STEP_PATTERN = re.compile(r"(?:step|iter|it|epoch|ep|kimg|snapshot)[-_ =]*(\d+)|(\d+)(?!.*\d)", re.IGNORECASE)
# Settings that do not change what a record of one checkpoint says.
_IRRELEVANT_SETTINGS = ("log", "exhibits", "device", "batch_size")


@dataclass(frozen=True, slots=True)
class CheckpointSeries:
    """An audited run. `points`: (step, record) in order; `log`: losses document or None; `failed`: (file name, reason).

    `score_jumps`: pairs of checkpoints between which the score rose, each with the last log event before.
    """

    points: tuple[tuple[float, Record], ...]
    log: Mapping[str, Any] | None
    score_jumps: tuple[Mapping[str, Any], ...]
    failed: tuple[tuple[str, str], ...] = ()

    @property
    def advice(self) -> dict[str, Any]:
        """Which checkpoint to keep, and why; see verdict/series_advice.py."""
        return advise_checkpoint(self.points, self.log, self.failed)

    @property
    def exit_codes(self) -> list[ExitCode]:
        return [verdict_exit_code(record) for _, record in self.points]

    def to_json(self) -> str:
        """The document as JSON text (schema gandiag.run/1)."""
        points = [{"step": step, "record": to_json_value(record)} for step, record in self.points]
        document = {
            "schema": SCHEMA,
            "log": self.log,
            "points": points,
            "brackets": self.score_jumps,
            "failed": [list(entry) for entry in self.failed],
            "advice": self.advice,
        }
        return json.dumps(to_json_value(document), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)


def audit_series(
    folder: str | Path,
    resolved: ResolvedConfig,
    *,
    progress: ProgressCallback = no_progress,
    on_message: MessageCallback | None = None,
) -> CheckpointSeries:
    """Audit every checkpoint of a run that has no current record yet.

    A checkpoint that cannot be audited is listed in `failed`. SourceError where there are no checkpoints, or none can
    be audited.
    """
    root = Path(folder)
    checkpoints = find_checkpoints(root, prefers_samples=resolved.config.group_by is not None)
    log = _read_log(root, resolved)
    record_folder = root / RECORD_FOLDER
    try:
        record_folder.mkdir(exist_ok=True)
    except OSError as problem:
        raise RecordError(
            f"{record_folder} cannot be created: {problem.strerror}",
            "make the run's folder writable: records are kept there",
        ) from None
    points, failed = [], []
    for n_done, (step, path) in enumerate(checkpoints):
        progress("checkpoints", n_done, len(checkpoints))
        try:
            points.append((step, _audit_checkpoint(path, _record_path(root, path), resolved, on_message)))
        except GandiagError as problem:
            failed.append((path.name, problem.message))
    if not points:
        raise SourceError(
            f"none of the {len(checkpoints)} checkpoints in {root} could be audited: {failed[0][1]}",
            "audit one of them alone to see what it needs",
        )
    return CheckpointSeries(tuple(points), log, find_score_jumps(points, log), tuple(failed))


def describe_series(folder: str | Path, resolved: ResolvedConfig) -> str:
    """What `audit_series` would do, as text: the log, every checkpoint and its state, and the time.

    Opens the first checkpoint and draws a few samples.
    """
    root = Path(folder)
    checkpoints = find_checkpoints(root, prefers_samples=resolved.config.group_by is not None)
    rows, pending = [], []
    for step, path in checkpoints:
        is_known = _read_current_record(path, _record_path(root, path), resolved) is not None
        rows.append(f"  {step:>12,.0f}  {path.relative_to(root)}: {'already audited' if is_known else 'to audit'}")
        pending += [] if is_known else [path]
    log = _read_log(root, resolved)
    log_files = "not found (pass --log FILE)" if log is None else ", ".join(log["read"]["files"])
    header = f"{len(checkpoints)} checkpoints in {folder}, {len(pending)} to audit; log: {log_files}"
    return "\n".join([header, *rows, _estimate_time(pending, resolved)])


def _estimate_time(pending: Sequence[Path], resolved: ResolvedConfig) -> str:
    """An estimate from the first checkpoint: the others of a run are like it."""
    from gandiag.pipeline.engine import StageTimer
    from gandiag.pipeline.group_inputs import is_grouped_audit
    from gandiag.pipeline.session import open_session

    if not pending:
        return "nothing to audit: all records are up to date"
    if is_grouped_audit(resolved.config, None):
        return f"variety within groups, by {resolved.config.group_by or 'class'}"
    try:
        session = open_session(str(pending[0]), _single_config(resolved).config, real=None, timer=StageTimer())
    except GandiagError as problem:
        return f"time unknown: {pending[0].name} could not be opened: {problem.message}"
    return f"each: {session.summary()}; all: about {session.estimated_seconds() * len(pending):,.0f} s"


def _single_config(resolved: ResolvedConfig) -> ResolvedConfig:
    """The settings for one checkpoint: the log belongs to the run, and exhibits would be stored once per checkpoint."""
    return dataclasses.replace(resolved, config=dataclasses.replace(resolved.config, log=None, exhibits=False))


def _record_path(root: Path, checkpoint: Path) -> Path:
    return root / RECORD_FOLDER / f"{checkpoint.stem}.json"


def find_checkpoints(folder: Path, *, prefers_samples: bool = False) -> list[tuple[float, Path]]:
    """(step, file or folder of samples) of the generator's snapshots in order of the step.

    Without weights, or where `prefers_samples`, samples of each checkpoint count: `step_1000/`, `step_1000.npz`.

    Files whose names differ only in numbers form a series; generators are preferred, then the longest series.
    Discriminators and files without a number are left out. SourceError where nothing remains.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder", "pass the folder of a training run: --run DIR")
    samples = find_sample_series(folder)
    if prefers_samples and samples:
        return samples
    series: dict[str, list[tuple[float, Path]]] = {}
    for path in sorted(folder.rglob("*")):
        step = _parse_step(path.stem)
        if step is None or path.suffix.lower() not in WEIGHT_SUFFIXES or not path.is_file():
            continue
        if parse_role(path.stem)[0] != "discriminator":
            pattern = f"{path.parent}/{DIGITS_PATTERN.sub('#', path.stem)}"
            series.setdefault(pattern, []).append((step, path))
    if not series and samples:
        return samples
    if not series:
        raise SourceError(
            f"{folder} contains no checkpoints with a step in their names",
            "pass a folder with files such as step-1000.pt or netG_epoch_5.pth, or with a folder of samples per step",
        )

    def priority(pattern: str) -> tuple[bool, int]:
        return parse_role(Path(pattern).name)[0] in ("generator", "average"), len(series[pattern])

    return sorted(series[max(series, key=priority)])


def find_sample_series(folder: Path) -> list[tuple[float, Path]]:
    """(step, folder or file of samples) directly inside a folder, in order: the longest series of like names."""
    series: dict[str, list[tuple[float, Path]]] = {}
    for path in sorted(folder.iterdir()):
        step = _parse_step(path.stem if path.is_file() else path.name)
        is_candidate = path.is_dir() or path.suffix.lower() in (".npz", ".npy", ".zip")
        if step is not None and is_candidate and path.name != RECORD_FOLDER and is_sample_path(path):
            series.setdefault(DIGITS_PATTERN.sub("#", path.name), []).append((step, path))
    return sorted(series[max(series, key=lambda pattern: len(series[pattern]))]) if series else []


def _hash_content(path: Path, resolved: ResolvedConfig) -> str:
    """What `subject.sha256` of a record of this checkpoint says."""
    if not is_sample_path(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    key = choose_sample_array(resolved.config.group_by, path, resolved.config.npz_key)
    return open_samples(path, npz_key=key).fingerprint()


def _parse_step(stem: str) -> float | None:
    """The number after a word such as step or epoch, else the last number of a file name, else None."""
    matches = list(STEP_PATTERN.finditer(stem))
    if not matches:
        return None
    named = next((match[1] for match in matches if match[1]), None)
    return float(named or matches[-1][1] or matches[-1][2])


def find_score_jumps(
    points: Sequence[tuple[float, Record]], log: Mapping[str, Any] | None
) -> tuple[dict[str, Any], ...]:
    """Neighboring checkpoints between which the score rose beyond both intervals.

    Each with the last log event before the second of them.
    """
    jumps = []
    for (start, before), (end, after) in pairwise(points):
        low, high = after.score.low, before.score.high
        if low is None or high is None or not low > high:
            continue
        event = _last_event(log, end)
        change = f"score {before.score.value:.2f} to {after.score.value:.2f}"
        text = f"diversity dropped between {start:,.0f} and {end:,.0f} ({change})"
        if event is not None:
            lag = start - event["step"]
            when = f"{lag:,.0f} {(log or {}).get('unit')} after" if lag > 0 else "while"
            text += f", {when} {EVENT_TEXT.get(event['kind'], event['kind'])} (at {event['step']:,.0f})"
        jumps.append(
            {
                "from": start,
                "to": end,
                "before": before.score.value,
                "after": after.score.value,
                "event": event,
                "text": text,
            }
        )
    return tuple(jumps)


def _last_event(log: Mapping[str, Any] | None, end: float) -> Mapping[str, Any] | None:
    """The last event of the log up to step `end`, other than "settled"."""
    events = [event for event in (log or {}).get("events", ()) if event["kind"] != "settled" and event["step"] <= end]
    return max(events, key=lambda event: event["step"]) if events else None


def _read_log(folder: Path, resolved: ResolvedConfig) -> Mapping[str, Any] | None:
    """The losses document of the configured log, else of the log in the folder, else None."""
    if resolved.config.log is not None:
        return losses(resolved.config.log, seed=resolved.config.seed).document
    try:
        return losses(str(folder), seed=resolved.config.seed).document
    except GandiagError:
        return None


def _read_current_record(path: Path, record_path: Path, resolved: ResolvedConfig) -> Record | None:
    """The kept record of a checkpoint if it was made from the same file with the same settings and version."""
    if not record_path.is_file():
        return None
    try:
        record = Record.read(record_path)
    except RecordError:
        return None
    try:
        if record.subject.get("sha256") != _hash_content(path, resolved):
            return None
    except GandiagError:
        return None
    return record if _recorded_settings(record) == _current_settings(resolved) else None


def _audit_checkpoint(
    path: Path, record_path: Path, resolved: ResolvedConfig, on_message: MessageCallback | None
) -> Record:
    """The current record of a checkpoint, or a new one, which is then kept."""
    current = _read_current_record(path, record_path, resolved)
    if current is not None:
        return current
    if on_message is not None:
        on_message(f"auditing {path.name}")
    record = audit_with_config(str(path), _single_config(resolved))
    write_atomically(record_path, record.to_json() + "\n")
    return record


def _recorded_settings(record: Record) -> tuple[dict[str, Any], str | None]:
    config = record.provenance.get("config") or {}
    values = {name: entry.get("value") for name, entry in config.items() if name not in _IRRELEVANT_SETTINGS}
    return values, (record.provenance.get("versions") or {}).get("gandiag")


def _current_settings(resolved: ResolvedConfig) -> tuple[dict[str, Any], str | None]:
    from gandiag.pipeline.build_record import package_version

    settings = {entry.name: getattr(resolved.config, entry.name) for entry in dataclasses.fields(resolved.config)}
    values = {name: value for name, value in to_json_value(settings).items() if name not in _IRRELEVANT_SETTINGS}
    return values, package_version("gandiag") or __version__
