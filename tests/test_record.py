"""The record: JSON round trip without NaN, atomic writing, and the number of samples that a verdict needs."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
import records
from records import ALL

from gandiag.errors import RecordError
from gandiag.record import Exhibit, Finding, Measurement, Record, Score, to_json_value, write_atomically
from gandiag.report.formatting import VERDICT_LABELS


@pytest.mark.parametrize("name", sorted(ALL))
def test_round_trip(name: str) -> None:
    record = ALL[name]()
    again = Record.from_json(record.to_json())
    assert json.loads(again.to_json()) == json.loads(record.to_json())
    assert isinstance(again.score, Score) and all(
        isinstance(entry, Measurement) for entry in again.measurements.values()
    )
    assert all(isinstance(entry, Finding) for entry in again.findings) and all(
        isinstance(entry, Exhibit) for entry in again.exhibits
    )


def test_no_nan_reaches_the_file() -> None:
    record = Record(
        "inconclusive", (), Score(float("nan"), float("-inf"), float("inf")), {}, {"x": Measurement(float("nan"))}
    )
    text = record.to_json()
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text)["measurements"]["x"]["value"] is None


def test_numpy_and_torch_scalars_become_numbers() -> None:
    import numpy as np
    import torch

    assert to_json_value({"a": np.float32(0.5), "b": torch.tensor(2), "c": (np.int64(3),)}) == {
        "a": 0.5,
        "b": 2,
        "c": [3],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "schema is None"),
        ('{"schema": "other/1"}', "'other/1'"),
        ('{"schema": "gandiag.audit/1"}', "damaged"),
    ],
)
def test_other_documents_are_rejected(text: str, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        Record.from_json(text)
    assert message in caught.value.message and caught.value.hint


def test_writing_is_atomic_and_failures_leave_nothing(tmp_path: Path) -> None:
    target = tmp_path / "audit.json"
    write_atomically(target, "one")
    write_atomically(target, "two")
    assert target.read_text() == "two" and [entry.name for entry in tmp_path.iterdir()] == ["audit.json"]
    with pytest.raises(RecordError, match="cannot be written"):
        write_atomically(tmp_path / "no" / "audit.json", "x")
    with pytest.raises(RecordError, match="cannot be written"):
        write_atomically("/proc/audit.json", "x")


def test_scalars_are_flat_numbers_under_a_prefix() -> None:
    record = ALL["collapsed"]()
    scalars = record.scalars("audit/")
    assert scalars["audit/score"] == record.score.value
    assert all(key.startswith("audit/") and isinstance(value, float) for key, value in scalars.items())


def test_links_are_followed_and_devices_are_written_to(tmp_path: Path) -> None:
    """Renaming a file to a link or a pipe would replace it."""
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    write_atomically(tmp_path / "link.json", "new")
    assert (tmp_path / "link.json").is_symlink() and (tmp_path / "real.json").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(tmp_path / "pipe", "through")
    assert os.read(reader, 100) == b"through" and (tmp_path / "pipe").is_fifo()
    os.close(reader)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "pipe", "real.json"]


def test_required_samples() -> None:
    """Intervals shrink with 1/√n: an interval of half the width takes four times the samples."""
    assert Score(0.10, 0.00, 0.20, n_fake=500).required_samples() == 2000  # half-width 0.10, 0.05 to the limit
    assert Score(0.20, 0.10, 0.30, n_fake=500).required_samples() == 2000
    # Healthy, but only a loss of twice the limit would have been detected.
    assert Score(0.0, 0.0, 0.10, power=0.3, n_fake=100).required_samples() == 400
    assert Score(0.0, 0.0, 0.10, power=0.1, n_fake=500).required_samples() is None
    # On the limit: no number of samples is enough.
    assert Score(0.15, 0.10, 0.20, n_fake=500).required_samples() is None
    # A value next to the limit does not ask for a hundred times the samples: it moves itself.
    assert Score(0.14, 0.00, 0.28, n_fake=300).required_samples() == 2400
    assert Score(None, None, None, n_fake=50).required_samples() is None


@pytest.mark.parametrize("verdict", list(VERDICT_LABELS))
def test_every_verdict_can_be_read_back(verdict: str) -> None:
    record = dataclasses.replace(records.healthy(), verdict=verdict)
    assert Record.from_json(record.to_json()).verdict == verdict
