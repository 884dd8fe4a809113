"""Turns a Record into display values in reading order, shared by the terminal, the HTML page and Markdown.

Every string is safe to print; escaping for HTML or Markdown is left to those reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gandiag.record import Record
from gandiag.report import formatting, provenance

ACCENT_CLASSES = {
    "healthy": "good",
    "collapsed": "bad",
    "inconclusive": "doubt",
    "not_degenerate": "known",
    "unrealistic": "doubt",
    "memorised": "bad",
}


@dataclass(frozen=True, slots=True)
class EstimateView:
    """A number in [0, 1] with its 95 % interval, as text and as positions on a bar, in percent."""

    value: float
    low: float | None
    high: float | None

    @property
    def text(self) -> str:
        """ "0.48"."""
        return formatting.format_score(self.value)

    @property
    def interval(self) -> str:
        """ "[0.44, 0.52]"; empty if unknown."""
        return formatting.format_interval(self.low, self.high, formatting.format_score)

    @property
    def position(self) -> float:
        """Where the value lies on the bar."""
        return to_bar_position(self.value)

    @property
    def start(self) -> float:
        """Where the interval starts on the bar."""
        return to_bar_position(self.value if self.low is None else self.low)

    @property
    def end(self) -> float:
        """Where the interval ends on the bar."""
        return to_bar_position(self.value if self.high is None else self.high)

    def __str__(self) -> str:
        return f"{self.text} {self.interval}".rstrip()


@dataclass(frozen=True, slots=True)
class BannerView:
    """The verdict with what must be read beside it. `limit`: position on the bar; `kinds`: (name, meaning)."""

    accent: str
    word: str
    subject: str
    caveat: str
    summary: str
    score: EstimateView | None
    limit: float
    limit_text: str
    kinds: tuple[tuple[str, str], ...]
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShareRow:
    """One entry of the profile or the aspects. `scored`: whether it counts towards the collapse score."""

    name: str
    meaning: str
    estimate: EstimateView | None
    scored: bool


@dataclass(frozen=True, slots=True)
class ClassRow:
    """The score of one class; without real data of the class, the spread of its samples."""

    label: str
    estimate: EstimateView | None
    spread: str


@dataclass(frozen=True, slots=True)
class TrainingView:
    """The verdict on the training log. `facts`: of the oscillation; `events`: (step, kind, evidence)."""

    verdict: str
    facts: tuple[tuple[str, str], ...]
    events: tuple[tuple[str, str, str], ...]


def to_bar_position(value: float | None) -> float:
    """A number in [0, 1] as a position in percent."""
    return 0.0 if value is None else round(100 * min(max(float(value), 0.0), 1.0), 2)


def build_estimate(entry: Any) -> EstimateView | None:
    """The estimate of {value, low, high}; None without a number."""
    value = entry.get("value") if isinstance(entry, Mapping) else None
    return EstimateView(value, entry.get("low"), entry.get("high")) if isinstance(value, (int, float)) else None


def build_banner(record: Record) -> BannerView:
    """The verdict banner."""
    score = record.score
    kinds = (text.partition(": ") for text in formatting.describe_kinds(record))
    facts = (formatting.describe_sample_size(record), provenance.describe_trained_scale(record))
    return BannerView(
        accent=ACCENT_CLASSES.get(record.verdict, "doubt"),
        word=formatting.capitalize_first(formatting.format_verdict(record).lower()),
        subject=formatting.format_subject(record),
        caveat=formatting.capitalize_first(formatting.describe_caveat(record)),
        summary=formatting.capitalize_first(formatting.describe_score(record)),
        score=build_estimate({"value": score.value, "low": score.low, "high": score.high}),
        limit=to_bar_position(score.limit),
        limit_text=formatting.format_score(score.limit),
        kinds=tuple((formatting.capitalize_first(name), meaning) for name, _, meaning in kinds),
        facts=tuple(formatting.capitalize_first(fact) for fact in facts if fact),
    )


def build_share_rows(entries: Mapping[str, Any], meanings: Mapping[str, str]) -> list[ShareRow]:
    """Rows of the profile or the aspects: known ones in the order of `meanings`, then plug-ins'."""
    return [
        ShareRow(
            formatting.key_to_text(key), meanings.get(key, ""), build_estimate(entries[key]), key != "off_manifold"
        )
        for key in formatting.sort_known_first(entries, meanings)
    ]


def build_column_rows(record: Record) -> list[ClassRow]:
    """Columns of a table, the largest loss first, each with what it lacks."""
    rows = []
    for entry in sorted(record.table.get("columns") or (), key=lambda entry: -(entry["loss"]["value"] or 0.0)):
        rows.append(ClassRow(str(entry["name"]), build_estimate(entry["loss"]), _describe_column(entry)))
    return rows


def _describe_column(entry: Mapping[str, Any]) -> str:
    """ "category; never made: Fair, Good" ."""
    parts = [str(entry.get("type"))]
    lacking = [str(name) for name in entry.get("never_made") or ()]
    if entry.get("constant"):
        parts.append("one value only")
    elif lacking:
        parts.append(f"never made: {', '.join(lacking[:3])}{' …' if len(lacking) > 3 else ''}")
    missing = entry.get("missing_values") or {}
    if any(missing.values()):
        shares = f"{100 * missing.get('real', 0):.1f} % real, {100 * missing.get('fake', 0):.1f} % generated"
        parts.append(f"missing values: {shares}")
    return "; ".join(parts)


def build_class_rows(record: Record) -> list[ClassRow]:
    """Rows of the class table, in the record's order: worst first."""
    rows = []
    for entry in record.classes:
        score, spread = entry.get("score"), entry.get("spread")
        interval = {"value": spread, "low": entry.get("spread_low"), "high": entry.get("spread_high")}
        estimate = build_estimate(score if isinstance(score, Mapping) else {**entry, "value": score})
        text = "" if spread is None else f"spread {formatting.format_estimate(interval)}"
        rows.append(ClassRow(formatting.format_value(entry.get("label")), estimate, text))
    return rows


def build_training(record: Record) -> TrainingView | None:
    """The verdict on the training log; None if the record has none."""
    losses = record.training
    if not losses:
        return None
    facts = tuple(
        (formatting.key_to_text(key), formatting.format_value(value))
        for key, value in formatting.sort_entries(losses.get("oscillation") or {})
        if value is not None
    )
    events = tuple(
        (
            formatting.format_value(event.get("step")),
            formatting.key_to_text(event.get("kind")),
            formatting.format_value(event.get("evidence")),
        )
        for event in losses.get("events") or ()
    )
    return TrainingView(formatting.key_to_text(losses.get("verdict") or "not analyzed"), facts, events)


def build_generator_rows(record: Record) -> list[tuple[str, str]]:
    """(label, value) of what was audited."""
    about = record.subject
    rows = (
        ("file", formatting.format_subject(record)),
        ("model", provenance.describe_model(record)),
        ("loader", formatting.format_value(about.get("loader") or "")),
        ("SHA-256", formatting.format_value(about.get("sha256") or "")),
    )
    return [row for row in rows if row[1]]


def build_assumption_rows(record: Record) -> list[tuple[str, str, str]]:
    """(setting, value, source) of every assumption about the file."""
    return [
        (
            formatting.format_value(entry.get("what")),
            formatting.format_value(entry.get("value")),
            formatting.format_value(entry.get("source")),
        )
        for entry in record.subject.get("assumptions") or ()
    ]
