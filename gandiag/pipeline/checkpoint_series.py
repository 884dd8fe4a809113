"""A whole training run: every checkpoint audited, lined up with the log (schema gandiag.run/1).

Records are kept in the folder's `gandiag-audits/`, one a checkpoint: what is there with the same file hash, settings and
version is not audited again, so that an interrupted pass goes on where it stopped.
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
from gandiag.errors import GandiagError, RecordError, SourceError
from gandiag.pipeline.engine import ProgressCallback, no_progress
from gandiag.pipeline.run_audit import MessageCallback, audit_with_config
from gandiag.record import Record, to_json_value, write_atomically
from gandiag.training_logs.analysis import losses
from gandiag.verdict.policy import verdict_exit_code

SCHEMA = "gandiag.run/1"
RECORD_FOLDER = "gandiag-audits"
EVENT_TEXT = {
    "oscillating": "the losses began to oscillate",
    "diverging": "the losses began to diverge",
    "mode_hopping": "the bursts of the losses began",
    "discriminator_wins": "D began to win",
    "generator_wins": "G began to win",
    "failed": "the losses failed",
}
DIGITS_PATTERN = re.compile(r"\d+")
STEP_PATTERN = re.compile(r"(?:step|iter|it|epoch|ep|kimg|snapshot)[-_ =]*(\d+)|(\d+)(?!.*\d)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CheckpointSeries:
    """A run as audited. points: [(step, record)] in order; `log`: losses document or None; brackets: where variety fell, and after what."""

    points: tuple[tuple[float, Record], ...]
    log: Mapping[str, Any] | None
    score_jumps: tuple[Mapping[str, Any], ...]
    failed: tuple[tuple[str, str], ...] = ()

    @property
    def exit_codes(self) -> list[Any]:
        return [verdict_exit_code(record) for _, record in self.points]

    def to_json(self) -> str:
        """The document: schema gandiag.run/1."""
        points = [{"step": step, "record": to_json_value(record)} for step, record in self.points]
        whole = {
            "schema": SCHEMA,
            "log": self.log,
            "points": points,
            "brackets": self.score_jumps,
            "failed": [list(entry) for entry in self.failed],
        }
        return json.dumps(to_json_value(whole), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)


def audit_series(
    folder: str | Path,
    resolved: ResolvedConfig,
    *,
    progress: ProgressCallback = no_progress,
    on_message: MessageCallback | None = None,
) -> CheckpointSeries:
    """Audit every checkpoint of a run that has not been audited yet. Raises SourceError where there are none; one that cannot be read is listed."""
    place = Path(folder)
    found = find_checkpoints(place)
    log = _log(place, resolved)
    kept = place / RECORD_FOLDER
    try:
        kept.mkdir(exist_ok=True)
    except OSError as problem:
        raise RecordError(
            f"{kept} cannot be made: {problem.strerror}",
            "make the folder of the run writable: the records are kept there",
        ) from None
    points, failed = [], []
    for at, (step, path) in enumerate(found):
        progress("checkpoints", at, len(found))
        try:
            points.append((step, _audited(path, _place_of(place, path), resolved, on_message)))
        except GandiagError as problem:
            failed.append((path.name, problem.message))
    if not points:
        raise SourceError(
            f"none of the {len(found)} checkpoints in {place} could be audited: {failed[0][1]}",
            "audit one of them alone to see what it needs",
        )
    return CheckpointSeries(tuple(points), log, find_score_jumps(points, log), tuple(failed))


def describe_series(folder: str | Path, resolved: ResolvedConfig) -> str:
    """What `audit_run` would do, as text: the log, every checkpoint with what is to be done, and the time. Opens the first one, draws a few samples."""
    place = Path(folder)
    found = find_checkpoints(place)
    rows, todo = [], []
    for step, path in found:
        known = _known(path, _place_of(place, path), resolved) is not None
        rows.append(f"  {step:>12,.0f}  {path.relative_to(place)}: {'audited already' if known else 'to audit'}")
        todo += [] if known else [path]
    log = _log(place, resolved)
    told = "none was found; give --log FILE" if log is None else ", ".join(log["read"]["files"])
    head = f"{len(found)} checkpoints in {folder}, {len(todo)} of them to audit; log: {told}"
    return "\n".join([head, *rows, _time(todo, resolved)])


def _time(todo: Sequence[Path], resolved: ResolvedConfig) -> str:
    """One checkpoint is opened; the others of a run are like it."""
    from gandiag.pipeline.engine import StageTimer
    from gandiag.pipeline.session import open_session

    if not todo:
        return "nothing is to be audited: the records are read from where they are kept"
    try:
        study = open_session(str(todo[0]), _alone(resolved).config, real=None, timer=StageTimer())
    except GandiagError as problem:
        return f"the time is not known: {todo[0].name} could not be opened: {problem.message}"
    return f"each: {study.summary()}; all of them about {study.estimated_seconds() * len(todo):,.0f} s"


def _alone(resolved: ResolvedConfig) -> ResolvedConfig:
    """The settings for one checkpoint: the log belongs to the run, and pictures would be kept once for each."""
    return dataclasses.replace(resolved, config=dataclasses.replace(resolved.config, log=None, exhibits=False))


def _place_of(folder: Path, checkpoint: Path) -> Path:
    return folder / RECORD_FOLDER / f"{checkpoint.stem}.json"


def find_checkpoints(folder: Path) -> list[tuple[float, Path]]:
    """(step, file) of the generator's snapshots: files whose names differ by a number, in order; discriminators and optimisers left out."""
    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder", "pass the folder of a training run: --run DIR")
    families: dict[str, list[tuple[float, Path]]] = {}
    for path in sorted(folder.rglob("*")):
        number = [found for found in STEP_PATTERN.finditer(path.stem)]
        if (
            path.suffix.lower() not in WEIGHT_SUFFIXES
            or not number
            or not path.is_file()
            or parse_role(path.stem)[0] == "discriminator"
        ):
            continue
        said = next((hit[1] or hit[2] for hit in number if hit[1]), number[-1][1] or number[-1][2])
        families.setdefault(f"{path.parent}/{DIGITS_PATTERN.sub('#', path.stem)}", []).append((float(said), path))
    if not families:
        raise SourceError(
            f"{folder} holds no checkpoints with a step in their names",
            "pass a folder with files such as step-1000.pt or netG_epoch_5.pth",
        )
    best = max(
        families, key=lambda name: (parse_role(Path(name).name)[0] in ("generator", "average"), len(families[name]))
    )
    return sorted(families[best])


def find_score_jumps(
    points: Sequence[tuple[float, Record]], log: Mapping[str, Any] | None
) -> tuple[dict[str, Any], ...]:
    """Between which checkpoints the score rose by more than both intervals allow, and the last event of the log before the end of that time."""
    found = []
    for (start, before), (end, after) in pairwise(points):
        low, high = after.score.low, before.score.high
        if low is None or high is None or not low > high:
            continue
        entry: dict[str, Any] = {
            "from": start,
            "to": end,
            "before": before.score.value,
            "after": after.score.value,
            "event": None,
        }
        text = f"variety fell between {start:,.0f} and {end:,.0f} (score {before.score.value:.2f} to {after.score.value:.2f})"
        events = [
            event for event in (log or {}).get("events", ()) if event["kind"] != "settled" and event["step"] <= end
        ]
        if events:
            last = max(events, key=lambda event: event["step"])
            entry["event"] = last
            lag = start - last["step"]
            when = f"{lag:,.0f} {(log or {}).get('unit')} after" if lag > 0 else "while"
            text += f", {when} {EVENT_TEXT.get(last['kind'], last['kind'])} (at {last['step']:,.0f})"
        found.append({**entry, "text": text})
    return tuple(found)


def _log(folder: Path, resolved: ResolvedConfig) -> Mapping[str, Any] | None:
    """The log that was named, else the one in the folder, else none."""
    if resolved.config.log is not None:
        return losses(resolved.config.log, seed=resolved.config.seed).document
    try:
        return losses(str(folder), seed=resolved.config.seed).document
    except GandiagError:
        return None


def _known(path: Path, kept: Path, resolved: ResolvedConfig) -> Record | None:
    """The record of a checkpoint where it was audited before: the same file, settings and version."""
    if not kept.is_file():
        return None
    try:
        record = Record.read(kept)
    except RecordError:
        return None
    same = record.subject.get("sha256") == hashlib.sha256(path.read_bytes()).hexdigest() and _settings(
        record
    ) == _wanted(resolved)
    return record if same else None


def _audited(path: Path, kept: Path, resolved: ResolvedConfig, say: MessageCallback | None) -> Record:
    """The record of a checkpoint: read where it was audited before, else made and kept."""
    known = _known(path, kept, resolved)
    if known is not None:
        return known
    if say is not None:
        say(f"auditing {path.name}")
    record = audit_with_config(str(path), _alone(resolved))
    write_atomically(kept, record.to_json() + "\n")
    return record


def _settings(record: Record) -> Any:
    config = record.provenance.get("config") or {}
    values = {
        name: entry.get("value")
        for name, entry in config.items()
        if name not in ("log", "exhibits", "device", "batch_size")
    }
    return values, (record.provenance.get("versions") or {}).get("gandiag")


def _wanted(resolved: ResolvedConfig) -> Any:
    from gandiag.pipeline.build_record import package_version

    values = to_json_value(
        {entry.name: getattr(resolved.config, entry.name) for entry in dataclasses.fields(resolved.config)}
    )
    return {
        name: value for name, value in values.items() if name not in ("log", "exhibits", "device", "batch_size")
    }, package_version("gandiag") or __version__
