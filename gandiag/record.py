"""The Record of an audit and its JSON form (schema `gandiag.audit/1`).

It is the only interface between measuring on one side, judging and reporting on the other. Torch-free. A record
contains no host or user names; undefined numbers are null with a status and a reason, never NaN.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gandiag.config import DEFAULT_LIMIT
from gandiag.errors import RecordError, VerdictError
from gandiag.registry import import_target
from gandiag.untrusted.files import parse_json, read_text, write_file
from gandiag.untrusted.record_schema import check_record

SCHEMA = "gandiag.audit/1"
Verdict = Literal["healthy", "collapsed", "inconclusive", "not_degenerate", "unrealistic", "memorised"]
MeasurementStatus = Literal["ok", "not_measured", "error"]
BetterDirection = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number with everything needed to show it: interval, floor, unit, direction and n.

    `floor`: the same statistic, real against real at the same n; null without real data or for facts (`reason`
    explains). With `status` "not_measured" or "error" all numbers are null and `reason` is one sentence.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    unit: str = ""
    better: BetterDirection = "neither"
    n: int = 0
    status: MeasurementStatus = "ok"
    reason: str | None = None

    @classmethod
    def missing(cls, reason: str, status: MeasurementStatus = "not_measured") -> Measurement:
        """A measurement without numbers, and why."""
        return cls(value=None, status=status, reason=reason)


FACT_REASON = "a fact of the file"  # why a measurement that is no statistic of the samples has no floor
EQUAL_OUTPUTS = "equal outputs"  # how repeats differ: not at all (`reason` of distinct_outputs and largest_repeat)
MIN_STRUCTURE_GAP = 0.2  # lower bound of structure_gap from which wholes are wrong although parts are right
MAX_REQUIRED_SAMPLES = 1_000_000  # a question that needs more is not one that sampling answers


@dataclass(frozen=True, slots=True)
class Score:
    """The collapse score with its interval. 0: all the diversity of the reference; 1: none.

    `basis` "referenced": against real data; "degeneracy": a lower bound from the generator alone; "groups": variety
    within groups against a reference (`n_real`: its samples). `power`: the smallest share of lost diversity that this n
    would have detected with probability .95. `replicates`: the score on each replicate, in an order fixed by seed and
    n, so that records with equal seed, n and data can be paired.
    `injected`: what known losses score in these data, {kind, loss, score} each; empty where the score is high.
    `off_manifold`: share of the samples that are unlike real ones at the resolution that was scored; null for images,
    which are scored at a resolution where they pass for real, or not at all. `n_drawn`: generated samples of which
    `n_fake` are a subset, where there are more; else 0.
    """

    value: float | None
    low: float | None
    high: float | None
    limit: float = DEFAULT_LIMIT
    basis: Literal["referenced", "degeneracy", "groups"] = "referenced"
    power: float | None = None
    n_fake: int = 0
    n_real: int = 0
    replicates: tuple[float, ...] = ()
    injected: tuple[Mapping[str, Any], ...] = ()
    off_manifold: float | None = None
    n_drawn: int = 0

    def list_blind_spots(self) -> list[str]:
        """Kinds of loss of which even half would have been missed: an injected one scored below half the limit.

        Half the limit, because the injections have half the samples of the audit.
        """
        largest: dict[str, float] = {}
        for entry in self.injected:
            largest[entry["kind"]] = max(largest.get(entry["kind"], 0.0), entry["score"])
        return [kind for kind, score in largest.items() if not score >= self.limit / 2]

    def required_samples(self) -> int | None:
        """Generated samples (and twice as many real ones) needed for a verdict; None where n was enough or no n is.

        Where the interval contains the limit: enough for its near end to reach the limit, if the value stays the same;
        a value that happens to lie at the limit will move, so the distance counts as a third of the limit at least.
        Else where `power` is above the limit: enough to detect a loss as large as the limit. Standard errors shrink
        with 1/√n.
        """
        if self.value is None or self.low is None or self.high is None or not self.n_fake or self.basis == "groups":
            return None
        if self.low < self.limit <= self.high:
            half_width = self.value - self.low if self.value >= self.limit else self.high - self.value
            ratio = half_width / max(abs(self.value - self.limit), self.limit / 3, 1e-9)
        else:
            ratio = (self.power or 0.0) / self.limit
        count = round(self.n_fake * ratio**2, 1 - len(str(self.n_fake))) if ratio < 1e3 else math.inf
        return int(count) if self.n_fake < count <= MAX_REQUIRED_SAMPLES else None


@dataclass(frozen=True, slots=True)
class Exhibit:
    """An image, plot or histogram of the record. `data` by kind:

    image      {"png": base64, "columns", "rows", "tile"}
    series     {"x", "lines": {name: [..]}}
    histogram  {"edges", "counts": {name: [..]}}
    """

    id: str
    kind: Literal["image", "series", "histogram"]
    caption: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen, what it means and what to do. `remedies`: ranked, each {key, title, why, source, price}."""

    rule: str
    level: Literal["error", "warning", "note"]
    text: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    remedies: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Record:
    """The result of one audit. The field names are the JSON keys; see README, "The record"."""

    verdict: Verdict
    kinds: tuple[str, ...]
    score: Score
    subject: Mapping[str, Any]
    measurements: Mapping[str, Measurement]
    profile: Mapping[str, Any] = field(default_factory=dict)
    aspects: Mapping[str, Any] = field(default_factory=dict)
    modes: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[Mapping[str, Any], ...] = ()
    groups: Mapping[str, Any] = field(default_factory=dict)
    table: Mapping[str, Any] = field(default_factory=dict)
    response: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] | None = None
    game: Mapping[str, Any] = field(default_factory=dict)
    exhibits: tuple[Exhibit, ...] = ()
    findings: tuple[Finding, ...] = ()
    policy: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    schema: str = SCHEMA

    def to_json(self, indent: int | None = 2) -> str:
        """The record as JSON text: keys sorted, no NaN, numbers in full precision."""
        return json.dumps(to_json_value(self), indent=indent, sort_keys=True, allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Parse a record. RecordError for anything that is not a record of this schema."""
        try:
            document = parse_json(text)
        except ValueError as broken:
            place = f"{broken.msg} at line {broken.lineno}" if isinstance(broken, json.JSONDecodeError) else str(broken)
            raise RecordError(
                f"the text is not JSON ({place[:120]})", "pass a file written by `gandiag audit -o`"
            ) from None
        schema = document.get("schema") if isinstance(document, dict) else None
        if schema != SCHEMA:
            raise RecordError(
                f"the schema is {ascii(schema)[:60]}, not {SCHEMA!r}",
                "pass a file written by `gandiag audit -o` of this version",
            )
        try:
            check_record(document)
            return cls(**{**document, **_parse_sections(document)})
        except (TypeError, KeyError, ValueError) as wrong:
            raise RecordError(f"the record is damaged: {wrong}", "write it again with `gandiag audit -o`") from None

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Record:
        """Read a record from a file. RecordError where that fails."""
        try:
            text = read_text(path)
        except (OSError, UnicodeDecodeError) as problem:
            reason = problem.strerror if isinstance(problem, OSError) else "not text"
            raise RecordError(f"{path} cannot be read: {reason}", "pass a file written by `gandiag audit -o`") from None
        return cls.from_json(text)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the record to a file, atomically."""
        write_atomically(path, self.to_json() + "\n")

    def scalars(self, prefix: str = "gandiag/") -> dict[str, float]:
        """Flat numbers for a logger: the score, its interval, the profile, and every measurement that has a value."""
        values = {"score": self.score.value, "score_low": self.score.low, "score_high": self.score.high}
        values |= {f"profile_{name}": entry.get("value") for name, entry in self.profile.items()}
        values |= {name: entry.value for name, entry in self.measurements.items()}
        return {prefix + name: float(value) for name, value in values.items() if value is not None}

    def raise_for_verdict(self, accept: tuple[str, ...] = ("healthy", "not_degenerate")) -> None:
        """Raise VerdictError unless the verdict is one of `accept`."""
        if self.verdict not in accept:
            first_finding = self.findings[0].text if self.findings else ""
            message = f"verdict {self.verdict}: {first_finding}".rstrip(": ")
            raise VerdictError(message, "print(record) shows the evidence", record=self)

    def summary(self) -> str:
        """The verdict, its score and the most important findings on one screen; `str(record)` is the whole report."""
        return str(import_target("gandiag.report.brief_text:render_brief")(self))

    def __str__(self) -> str:
        return str(import_target("gandiag.report.terminal:render_text")(self))

    def _repr_html_(self) -> str:
        return str(import_target("gandiag.report.html_page:render_fragment")(self))


def _parse_sections(document: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of a JSON document that are not plain mappings, as their classes."""
    score = dict(document["score"])
    score["replicates"] = tuple(score.get("replicates", ()))
    score["injected"] = tuple(score.get("injected", ()))
    return {
        "kinds": tuple(document["kinds"]),
        "score": Score(**score),
        "measurements": {key: Measurement(**entry) for key, entry in document["measurements"].items()},
        "classes": tuple(document.get("classes", ())),
        "exhibits": tuple(Exhibit(**entry) for entry in document.get("exhibits", ())),
        "findings": tuple(
            Finding(**{**entry, "remedies": tuple(entry.get("remedies", ()))}) for entry in document.get("findings", ())
        ),
    }


def to_json_value(value: Any) -> Any:
    """Convert dataclasses, tuples and NumPy or torch scalars to JSON types; numbers that are not finite become None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: to_json_value(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json_value(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json_value(entry) for entry in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_atomically(path: str | os.PathLike[str], text: str, *, follow_links: bool = True) -> None:
    """Write `text` to a temporary file next to `path`, then rename it. RecordError where that fails.

    Links are followed within their folder, and replaced without `follow_links`. Pipes and devices such as /dev/stdout
    are written to directly: a rename would replace them.
    """
    try:  # paths in a record may contain bytes that are not valid text
        write_file(Path(path), text.encode("utf-8", "backslashreplace"), follow_links=follow_links)
    except OSError as problem:
        raise RecordError(
            f"{path} cannot be written: {problem.strerror}", "choose another path, or free some space"
        ) from None
