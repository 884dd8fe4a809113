"""What the reports show of modes (where clusters are separated) and of classes or regions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gandiag.record import Record
from gandiag.report import formatting

NO_CLUSTERS = "The real data have no separated clusters at this sample size, so modes cannot be counted."
STATE_TEXT = {"missing": "missing", "rare": "too rare", "frequent": "too frequent", "even": ""}


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A class or region: shares of the real and of the generated samples, as text and as lengths of bars in percent.

    `whisker`: start and length of the generated share's interval, in percent of the longest bar.
    """

    name: str
    real: str
    fake: str
    interval: str
    state: str
    real_length: float
    fake_length: float
    whisker: tuple[float, float]


@dataclass(frozen=True, slots=True)
class GroupShares:
    """`title`: "Class" or "Region"; `note`: how samples were assigned; rows with the largest deficit first."""

    title: str
    note: str
    rows: tuple[GroupRow, ...]


def has_no_clusters(record: Record) -> bool:
    """Whether modes cannot be counted, because the real data are one connected cloud or their clusters not stable."""
    modes = record.modes
    if record.score.basis != "referenced" or not modes:
        return False
    return modes.get("found") == 1 or (modes.get("covered") is None and "separated" in str(modes.get("reason")))


def build_mode_facts(record: Record) -> list[tuple[str, str]]:
    """(label, value) of the mode counts; none where the real data have no separated clusters."""
    modes = record.modes
    if has_no_clusters(record):
        return []
    labels = {
        "found": "in the real data" if modes.get("covered") is not None else "found",
        "covered": "covered",
        "effective": "effective number",
        "stability": "cluster stability",
    }
    return [(label, formatting.format_value(modes[key])) for key, label in labels.items() if modes.get(key) is not None]


def build_missed_modes(record: Record) -> list[tuple[str, str, str]]:
    """(mode, share of the real data, share of the samples) of every missed mode."""
    return [
        (
            formatting.format_value(entry.get("mode")),
            formatting.format_percent(entry.get("share_real")),
            formatting.format_percent(entry.get("share_fake")),
        )
        for entry in record.modes.get("missed") or ()
    ]


def build_group_shares(record: Record) -> GroupShares | None:
    """Shares of classes or regions; None if the record has none."""
    section = record.modes.get("groups") or {}
    entries = section.get("rows") or ()
    if not entries:
        return None
    longest = max((entry[side].get("high") or 0.0) for entry in entries for side in ("real", "fake")) or 1.0
    is_class = section.get("kind") == "classes"
    return GroupShares(
        "Class" if is_class else "Region",
        _describe_classes(section) if is_class else _describe_regions(section),
        tuple(_build_row(entry, longest) for entry in entries),
    )


def _build_row(entry: Mapping[str, Any], longest: float) -> GroupRow:
    real, fake = entry["real"], entry["fake"]

    def to_length(share: float | None) -> float:
        return round(100 * min(max((share or 0.0) / longest, 0.0), 1.0), 2)

    low, high = to_length(fake.get("low")), to_length(fake.get("high"))
    return GroupRow(
        formatting.format_value(entry.get("name")),
        formatting.format_percent(real.get("value")),
        formatting.format_percent(fake.get("value")),
        f"[{100 * (fake.get('low') or 0):.1f}, {100 * (fake.get('high') or 0):.1f}]",
        STATE_TEXT.get(str(entry.get("state")), formatting.key_to_text(entry.get("state"))),
        to_length(real.get("value")),
        to_length(fake.get("value")),
        (low, round(high - low, 2)),
    )


def _describe_classes(section: Mapping[str, Any]) -> str:
    accuracy = formatting.format_percent_interval(section.get("accuracy") or {})
    text = (
        "Shares of the classes of the real data. A classifier assigns the generated samples; "
        f"it is right for {accuracy} of the real ones (cross-validated)."
    )
    left_out = section.get("left_out") or 0
    if left_out:
        text += (
            f" {left_out:,} {'class has' if left_out == 1 else 'classes have'} too few real samples and are left out."
        )
    return text


def _describe_regions(section: Mapping[str, Any]) -> str:
    count = len(section.get("rows") or ())
    text = f"Shares of {count} regions (k-means): parts of the data without names or gaps between them"
    reason = section.get("reason")
    if reason and "no classes" not in str(reason):
        return f"{text}. Not by class: {formatting.escape_unprintable(reason)}."
    return f"{text}. Real data in class folders would give them names."
