"""The audit of every snapshot of a run: when did the modes go, and did they come back?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gandiag.api import audit
from gandiag.record import Record, plain
from gandiag.reference.data import Dataset
from gandiag.reference.folder import RunFolder

SAMPLES, IMAGES = 1_000, 250  # generated, against twice as many real ones; images cost a thousand times more
REAL_SEED = 104_729
FILE = "audits.json"


def audit_snapshots(folder: RunFolder, data: Dataset, progress: Callable[[int, int], None] = lambda done, total: None, last: bool = False,
                    **how: Any) -> list[dict[str, Any]]:  # fmt: skip
    """One row per snapshot, kept in audits.json: {step, verdict, kinds, score: {value, low, high}, profile}. Rows that are there are not made again.

    `last`: the last one alone. `how`: settings of the audit that the snapshots do not state, as `model` for somebody's own networks.
    """
    file = folder.path / FILE
    rows = {row["step"]: row for row in json.loads(file.read_text(encoding="utf-8"))} if file.exists() else {}
    snapshots = dict(list(folder.snapshots().items())[-1 if last else 0 :])
    count = IMAGES if data.output.kind == "image" else SAMPLES
    real = data.draw(2 * count, torch.Generator().manual_seed(REAL_SEED))
    for done, (step, path) in enumerate(snapshots.items()):
        progress(done, len(snapshots))
        if step not in rows:
            rows[step] = row_of(step, _audited(path, real, {"n": count, **how}))
            folder.write(FILE, json.dumps([rows[key] for key in sorted(rows)], indent=1) + "\n")
    return [rows[step] for step in sorted(rows)]


def row_of(step: int, record: Record) -> dict[str, Any]:
    """What a table of audits shows of a record."""
    score = {"value": record.score.value, "low": record.score.low, "high": record.score.high}
    profile = {name: entry.get("value") for name, entry in record.profile.items()}
    row: dict[str, Any] = plain({"step": step, "verdict": record.verdict, "kinds": record.kinds, "score": score, "profile": profile})
    return row


def _audited(path: Path, real: torch.Tensor, how: dict[str, Any]) -> Record:
    return audit(path, real, exhibits=False, **how)
