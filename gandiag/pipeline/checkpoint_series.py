"""Audits every checkpoint of a training run and relates the scores to the training log (schema gandiag.run/1).

Records are written to the folder's `gandiag-audits/`, one per checkpoint, and kept in the user's cache. A kept record
of the same checkpoint, data, settings and version is reused, so an interrupted pass continues where it stopped; what
lies in the run's folder is never believed.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from gandiag.checkpoints.file_type import WEIGHT_SUFFIXES
from gandiag.checkpoints.key_names import parse_role
from gandiag.config import ResolvedConfig
from gandiag.errors import ExitCode, GandiagError, RecordError, SourceError
from gandiag.pipeline.engine import ProgressCallback, no_progress
from gandiag.pipeline.record_store import RecordStore
from gandiag.pipeline.run_audit import MessageCallback, audit_with_config, without_new_spec
from gandiag.pipeline.subject import is_sample_path
from gandiag.record import Record, to_json_value, write_atomically
from gandiag.training_logs.analysis import losses
from gandiag.untrusted.files import make_own_folder
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
        make_own_folder(record_folder)
    except OSError as problem:
        raise RecordError(
            f"{record_folder} cannot be created: {problem.strerror}",
            "make the run's folder writable: records are kept there",
        ) from None
    store = RecordStore(resolved)
    points, failed = [], []
    for n_done, (step, path) in enumerate(checkpoints):
        progress("checkpoints", n_done, len(checkpoints))
        try:
            points.append((step, _audit_checkpoint(path, _record_path(root, path), resolved, store, on_message)))
        except RecordError:
            raise  # a full disk is not a fault of this checkpoint
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

    Opens the first checkpoint and draws a few samples; writes nothing.
    """
    root = Path(folder)
    checkpoints = find_checkpoints(root, prefers_samples=resolved.config.group_by is not None)
    rows, pending = [], []
    store = RecordStore(resolved)
    for step, path in checkpoints:
        is_known = store.get(path) is not None
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
        config = without_new_spec(_single_config(resolved).config)
        session = open_session(str(pending[0]), config, real=None, timer=StageTimer())
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


def _audit_checkpoint(
    path: Path,
    record_path: Path,
    resolved: ResolvedConfig,
    store: RecordStore,
    on_message: MessageCallback | None,
) -> Record:
    """The kept record of a checkpoint, or a new one; written to the run's folder, over whatever is there."""
    record = store.get(path)
    if record is None:
        if on_message is not None:
            on_message(f"auditing {path.name}")
        record = audit_with_config(str(path), _single_config(resolved))
        store.put(path, record)
    record = dataclasses.replace(record, subject={**record.subject, "path": str(path)})  # the same file elsewhere
    write_atomically(record_path, record.to_json() + "\n", follow_links=False)
    return record
