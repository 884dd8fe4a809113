"""Audits every snapshot of a run, to see when modes were lost and whether they came back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch

from gandiag.api import audit
from gandiag.record import Record, to_json_value
from gandiag.trainer.run_folder import RunFolder
from gandiag.trainer.toy_data import Dataset
from gandiag.untrusted.files import parse_json, read_text

# Generated samples per audit, against twice as many real ones; images cost a thousand times more.
NUM_VECTOR_SAMPLES, NUM_IMAGE_SAMPLES = 1_000, 250
REAL_SEED = 104_729
AUDITS_FILE = "audits.json"


def audit_snapshots(
    folder: RunFolder,
    data: Dataset,
    progress: Callable[[int, int], None] = lambda done, total: None,
    last_only: bool = False,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Return one row per snapshot: {step, verdict, kinds, score: {value, low, high}, profile}.

    Rows are kept in audits.json, and snapshots that have one are not audited again. `last_only` audits the last
    snapshot alone. `settings` are audit settings that the snapshots do not carry, such as `model` for a user's own
    networks.
    """
    file = folder.path / AUDITS_FILE
    rows = {row["step"]: row for row in parse_json(read_text(file))} if file.exists() else {}
    snapshots = dict(list(folder.list_snapshots().items())[-1 if last_only else 0 :])
    count = NUM_IMAGE_SAMPLES if data.output.kind == "image" else NUM_VECTOR_SAMPLES
    real = data.draw(2 * count, torch.Generator().manual_seed(REAL_SEED))
    for done, (step, path) in enumerate(snapshots.items()):
        progress(done, len(snapshots))
        if step not in rows:
            record = audit(path, real, exhibits=False, **{"n": count, **settings})
            rows[step] = make_audit_row(step, record)
            folder.write(AUDITS_FILE, json.dumps([rows[key] for key in sorted(rows)], indent=1) + "\n")
    return [rows[step] for step in sorted(rows)]


def make_audit_row(step: int, record: Record) -> dict[str, Any]:
    """Return the parts of a record that are kept in audits.json."""
    score = {"value": record.score.value, "low": record.score.low, "high": record.score.high}
    profile = {name: entry.get("value") for name, entry in record.profile.items()}
    row: dict[str, Any] = to_json_value(
        {"step": step, "verdict": record.verdict, "kinds": record.kinds, "score": score, "profile": profile}
    )
    return row
