"""How a Record is put into words: numbers, intervals, the sentence a person can read aloud, and safe strings.

Everything that shows a Record (terminal, page, markdown) speaks through here, so that it says the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gandiag.record import Finding, Record

NO_REAL_DATA = "missing modes cannot be seen without --real"
NOT_AVAILABLE = "–"
LEVEL_LABELS = {"error": "FAIL", "warning": "WARN", "note": "note"}

FAMILY_TEXT = {
    "transposed": "transposed convolutions (a DCGAN or its kin)",
    "projected": "a linear layer, then convolutions",
    "mlp": "linear layers (MLP)",
    "pickled": "standard layers, in the order of the pickled modules",
}
VERDICT_LABELS = {
    "healthy": "HEALTHY",
    "collapsed": "COLLAPSED",
    "inconclusive": "INCONCLUSIVE",
    "not_degenerate": "NOT DEGENERATE",
}

KIND_TEXT = {
    "complete": "complete collapse: nearly every sample is the same",
    "partial": "partial collapse: part of the variety is left",
    "mode_dropping": "mode dropping: whole kinds of sample are never made",
    "thin_modes": "thin modes: less variety inside the kinds that are made",
    "recycled": "recycled: the same samples come again and again",
    "skewed": "skewed: some kinds are made far too often",
    "conditional": "conditional: some classes have collapsed, others have not",
    "wrong_scale": "wrong scale: sampled at another latent scale than it was trained with",
    "off_distribution": "off distribution: samples unlike the real data (fidelity, not collapse)",
}

# Short enough to stand behind a bar at 80 columns.
PROFILE_TEXT = {
    "missing": "regions never visited",
    "skewed": "wrong proportions",
    "narrowed": "too little spread",
    "duplicated": "repeated samples",
    "off_manifold": "fidelity, not scored",
}

ASPECT_TEXT = {
    "color": "color and brightness",
    "texture": "fine structure",
    "layout": "where things are",
    "semantics": "what is shown",
}

DIRECTION_SYMBOLS = {"higher": "↑ higher", "lower": "↓ lower", "neither": NOT_AVAILABLE}
DIRECTION_TEXT = {"higher": "higher is better", "lower": "lower is better", "neither": "no direction"}

_FRACTIONS = (
    (0.0, "none"),
    (0.05, "a twentieth"),
    (0.1, "a tenth"),
    (0.2, "a fifth"),
    (0.25, "a quarter"),
    (1 / 3, "a third"),
    (0.4, "two fifths"),
    (0.5, "half"),
    (0.6, "three fifths"),
    (2 / 3, "two thirds"),
    (0.75, "three quarters"),
    (0.8, "four fifths"),
    (0.9, "nine tenths"),
    (1.0, "all"),
)


def escape_unprintable(text: Any) -> str:
    """Text that is safe on a terminal: whatever is not printable is shown as its escape. Checkpoint strings are attacker text."""
    return "".join(
        mark if mark.isprintable() else mark.encode("unicode_escape", "backslashreplace").decode("ascii")
        for mark in str(text)
    )


def truncate_start(text: str, width: int) -> str:
    """At most `room` characters; the tail, which tells files apart, is kept."""
    return text if len(text) <= width else "…" + text[len(text) - max(width, 2) + 1 :]


def format_score(value: float | None) -> str:
    """A share with two decimals; never "-0.00"."""
    return NOT_AVAILABLE if value is None else f"{round(value, 2) + 0.0:.2f}"


def format_number(value: Any) -> str:
    """A number with the digits that matter: 1,234 · 12.3 · 0.48 · 0.0012 · 1.2e-07."""
    if value is None:
        return NOT_AVAILABLE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or value == 0:
        return f"{int(value):,}"
    size = abs(value)
    if size < 1e-4 or size >= 1e9:
        return f"{value:.2g}"
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"


def format_scale(value: Any) -> str:
    """A latent scale as it is typed: 0.02 · 1 · 2.5."""
    return f"{value:.3g}" if isinstance(value, (int, float)) else format_value(value)


def format_interval(low: float | None, high: float | None, formatter: Any = format_number) -> str:
    """ "[0.44, 0.52]", or nothing where it is not known."""
    return "" if low is None or high is None else f"[{formatter(low)}, {formatter(high)}]"


def format_estimate(entry: Any, formatter: Any = format_score) -> str:
    """{value, low, high} as "0.48 [0.44, 0.52]"."""
    if not isinstance(entry, Mapping):
        return format_value(entry)
    return f"{formatter(entry.get('value'))} {format_interval(entry.get('low'), entry.get('high'), formatter)}".rstrip()


def format_value(value: Any) -> str:
    """Any JSON value on one line, in words and safe."""
    if value is None or isinstance(value, (bool, int, float)):
        return format_number(value)
    if isinstance(value, Mapping):
        if "value" in value:
            return format_estimate(value, format_number)
        return ", ".join(f"{key_to_text(key)} {format_value(entry)}" for key, entry in sort_entries(value))
    if isinstance(value, (list, tuple)):
        rest = f" … ({len(value)})" if len(value) > 8 else ""
        return ", ".join(format_value(entry) for entry in value[:8]) + rest
    return escape_unprintable(value)


def sort_entries(entries: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Entries by key, as the JSON has them, so that a record read back is shown as it was; gandiag's own version first."""
    return sorted(entries.items(), key=lambda entry: (entry[0] != "gandiag", entry[0]))


def sort_known_first(entries: Iterable[str], known: Iterable[str]) -> list[str]:
    """Keys in the order of `known`, then the others by name."""
    order = list(known)
    return sorted(entries, key=lambda key: (order.index(key) if key in order else len(order), key))


def key_to_text(key: Any) -> str:
    """A key as words: near_duplicates -> near duplicates."""
    return escape_unprintable(key).replace("_", " ")


def capitalize_first(text: str) -> str:
    """The first letter in upper case, the rest as it is."""
    return text[:1].upper() + text[1:]


def format_verdict(record: Record) -> str:
    """The verdict as a word, in capitals."""
    return VERDICT_LABELS.get(record.verdict, escape_unprintable(record.verdict).upper())


def describe_family(name: Any) -> str:
    """A generator's family as people call it; those that are told by shapes alone have no name of their own."""
    return FAMILY_TEXT.get(str(name), escape_unprintable(name))


def format_subject(record: Record) -> str:
    """The path or name of what was audited, safe to show."""
    return escape_unprintable(record.subject.get("path") or record.subject.get("family") or "generator")


def describe_caveat(record: Record) -> str:
    """What stands beside the verdict on the first line, where something must."""
    if record.score.basis == "degeneracy":
        return NO_REAL_DATA
    return "wrong scale, not collapse" if "wrong_scale" in record.kinds and record.verdict != "collapsed" else ""


def describe_fraction(value: float) -> str:
    """A share as people say it: .48 -> "about half"."""
    if value < 0.025:
        return "next to none"
    near = min(_FRACTIONS, key=lambda entry: abs(entry[0] - value))[1]
    return "nearly all" if near == "all" and value < 0.99 else near if near == "all" else f"about {near}"


def summarize_record(record: Record) -> str:
    """The result as a person would read it aloud, number first."""
    score = record.score
    number_first = (
        ""
        if score.value is None
        else f"{format_estimate({'value': score.value, 'low': score.low, 'high': score.high})}: "
    )
    return number_first + describe_score(record)


def describe_score(record: Record) -> str:
    """The same without the number."""
    score = record.score
    if score.value is None:
        return "There is no score: the evidence is not sufficient."
    if score.basis == "degeneracy":
        return _degeneracy(score.value)
    text = f"{describe_fraction(score.value)} of the real variety is missing"
    return text + (_doubt(record) if record.verdict == "inconclusive" else ".")


def _degeneracy(value: float) -> str:
    if value < 0.025:
        return "samples do not repeat and follow the latent. Whether kinds of sample are missing is unknown."
    return f"at least {describe_fraction(value).removeprefix('about ')} of the variety is lost to repeats, measured on the generator alone."


def _doubt(record: Record) -> str:
    score = record.score
    if score.low is not None and score.high is not None and score.low < score.limit <= score.high:
        needed = (
            f"About {score.required_samples():,} samples would decide"
            if score.required_samples()
            else "More samples may decide"
        )
        return f", give or take: the interval straddles the limit of {format_score(score.limit)}. {needed}."
    return ", but the evidence is not sufficient for a verdict."


def describe_sample_size(record: Record) -> str:
    """How much was looked at, and what it could have shown."""
    score = record.score
    if not score.n_fake:
        return ""
    told = f"{score.n_fake:,} generated" + (f" against {score.n_real:,} real" if score.n_real else "")
    if score.power is None:
        return told
    more = (
        f", one of {format_score(score.limit)} with {score.required_samples():,} samples"
        if score.power > score.limit and score.required_samples()
        else ""
    )
    return told + f"; a loss of {format_score(score.power)} would have been seen with probability 0.95{more}"


def describe_kinds(record: Record) -> list[str]:
    """Each kind with what it means."""
    return [KIND_TEXT.get(kind, key_to_text(kind)) for kind in record.kinds]


def sort_findings(record: Record) -> list[Finding]:
    """Failing before passing, otherwise in the judge's order."""
    order = list(LEVEL_LABELS)
    return sorted(record.findings, key=lambda found: order.index(found.level) if found.level in order else len(order))


def first_rule_per_remedy(findings: Iterable[Finding], max_remedies: int | None = None) -> dict[str, str]:
    """Remedy -> the rule that lists it first, among the first `most` of each: there it is told in full, elsewhere in short."""
    first: dict[str, str] = {}
    for finding in findings:
        for remedy in finding.remedies[:max_remedies]:
            first.setdefault(escape_unprintable(remedy.get("key")), finding.rule)
    return first


def format_evidence(entries: Mapping[str, Any]) -> str:
    """Evidence on one line."""
    return " · ".join(
        f"{key_to_text(key)} {format_value(value)}" for key, value in sort_entries(entries) if value is not None
    )


def group_missing_measurements(record: Record) -> list[tuple[str, str]]:
    """What was not measured, and why; errors first. Reasons that several share stand once."""
    reasons: dict[str, list[str]] = {}
    entries = sorted(record.measurements.items(), key=lambda entry: (entry[1].status != "error", entry[0]))
    for key, entry in entries:
        if entry.status != "ok":
            reason = escape_unprintable(entry.reason or "no reason given")
            reasons.setdefault(f"error: {reason}" if entry.status == "error" else reason, []).append(
                escape_unprintable(key)
            )
    if record.response and not record.response.get("points") and record.response.get("reason"):
        reasons.setdefault(escape_unprintable(record.response["reason"]), []).append("latent response")
    return [(", ".join(keys), reason) for reason, keys in reasons.items()]


def format_duration(seconds: float) -> str:
    """0.4 s · 41 s · 3 min 20 s · 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
