"""Formats numbers, intervals and JSON values as text, words the score, and makes strings safe to print.

Every report (terminal, HTML, Markdown, gates) uses these functions, so all of them say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gandiag.record import Record, Score
from gandiag.verdict.evidence_rules import KIND_OF_LOSS, describe_needed_samples
from gandiag.verdict.record_queries import is_memorised

NO_REAL_DATA = "missing modes cannot be detected without --real"
NO_REFERENCE = "no reference: a fact and no verdict"
NOT_AVAILABLE = "–"

FAMILY_TEXT = {
    "transposed": "transposed convolutions (DCGAN-like)",
    "projected": "a linear layer, then convolutions",
    "mlp": "linear layers (MLP)",
    "pickled": "standard layers, in the order of the pickled modules",
}
VERDICT_LABELS = {
    "healthy": "HEALTHY",
    "collapsed": "COLLAPSED",
    "inconclusive": "INCONCLUSIVE",
    "not_degenerate": "NOT DEGENERATE",
    "unrealistic": "NOT REAL-LIKE",
    "memorised": "MEMORISED",
}

KIND_TEXT = {
    "complete": "complete collapse: nearly all samples are the same",
    "partial": "partial collapse: some of the variety is left",
    "mode_dropping": "mode dropping: some modes of the data are never generated",
    "thin_modes": "thin modes: too little variety within modes",
    "recycled": "recycled: the same samples are generated repeatedly",
    "skewed": "skewed: some modes are generated far too often",
    "lost_values": "lost values: some values or combinations of columns are never generated",
    "constant_columns": "constant columns: some columns have one value only",
    "conditional": "conditional: some classes or prompts have collapsed",
    "wrong_scale": "wrong scale: sampled at a different latent scale than in training",
    "memorised": "memorised: samples are copies of real ones",
    "off_distribution": "off distribution: samples unlike the real data (fidelity, not collapse)",
}

# Short enough to fit behind a bar at 80 columns.
PROFILE_TEXT = {
    "missing": "regions not generated",
    "skewed": "wrong proportions",
    "narrowed": "too little spread",
    "duplicated": "repeated samples",
    "off_manifold": "fidelity, not scored",
}

ASPECT_TEXT = {
    "color": "color and brightness",
    "texture": "local texture",
    "layout": "spatial layout",
    "semantics": "image content",
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
NEGLIGIBLE_FRACTION = 0.025

Formatter = Callable[[Any], str]


def escape_unprintable(text: Any) -> str:
    """Make text safe for a terminal: unprintable characters become escapes. Checkpoint strings are untrusted."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode("ascii")
        for char in str(text)
    )


def escape_lines(text: str) -> str:
    """The same for text of several lines, whose line ends stay."""
    return "\n".join(escape_unprintable(line) for line in text.split("\n"))


def truncate_start(text: str, width: int) -> str:
    """Shorten to `width` characters by dropping the start; the end of a path tells files apart."""
    return text if len(text) <= width else "…" + text[len(text) - max(width, 2) + 1 :]


def format_score(value: float | None) -> str:
    """A number with two decimals; never "-0.00"."""
    return NOT_AVAILABLE if value is None else f"{round(value, 2) + 0.0:.2f}"


def format_number(value: Any) -> str:
    """A number with its significant digits: 1,234 · 12.3 · 0.48 · 0.0012 · 1.2e-07."""
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
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"


def format_count(count: Any, noun: str) -> str:
    """ "1 mode", "10 modes"."""
    return f"{format_number(count)} {noun}{'' if count == 1 else 's'}"


def format_percent(value: Any) -> str:
    """0.12 -> "12.0 %"."""
    return f"{100 * value:.1f} %" if isinstance(value, (int, float)) else NOT_AVAILABLE


def format_scale(value: Any) -> str:
    """A latent scale as one would type it: 0.02 · 1 · 2.5."""
    return f"{value:.3g}" if isinstance(value, (int, float)) else format_value(value)


def format_interval(low: float | None, high: float | None, formatter: Formatter = format_number) -> str:
    """The interval as "[0.44, 0.52]"; empty if unknown."""
    return "" if low is None or high is None else f"[{formatter(low)}, {formatter(high)}]"


def format_estimate(entry: Any, formatter: Formatter = format_score) -> str:
    """{value, low, high} as "0.48 [0.44, 0.52]"."""
    if not isinstance(entry, Mapping):
        return format_value(entry)
    return f"{formatter(entry.get('value'))} {format_interval(entry.get('low'), entry.get('high'), formatter)}".rstrip()


def format_value(value: Any) -> str:
    """Any JSON value on one line, safe to print."""
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


def format_duration(seconds: float) -> str:
    """0.4 s · 41 s · 3 min 20 s · 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def sort_entries(entries: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Entries by key, as in the JSON, so a record looks the same when read back; "gandiag" (its version) first."""
    return sorted(entries.items(), key=lambda entry: (entry[0] != "gandiag", entry[0]))


def sort_known_first(entries: Iterable[str], known: Iterable[str]) -> list[str]:
    """Keys in the order of `known`, then the others alphabetically."""
    order = list(known)
    return sorted(entries, key=lambda key: (order.index(key) if key in order else len(order), key))


def key_to_text(key: Any) -> str:
    """A key as words: near_duplicates -> near duplicates."""
    return escape_unprintable(key).replace("_", " ")


def capitalize_first(text: str) -> str:
    """The first letter in upper case, the rest unchanged."""
    return text[:1].upper() + text[1:]


def format_verdict(record: Record) -> str:
    """The verdict in capitals, memorization first."""
    label = _format_verdict_word(record)
    return f"MEMORISED, {label}" if is_memorised(record) and record.verdict != "memorised" else label


def _format_verdict_word(record: Record) -> str:
    return VERDICT_LABELS.get(record.verdict, escape_unprintable(record.verdict).upper())


def describe_family(name: Any) -> str:
    """The generator's architecture family; families that are recognized by weight shapes alone are described."""
    return FAMILY_TEXT.get(str(name), escape_unprintable(name))


def format_subject(record: Record) -> str:
    """The path or name of what was audited, safe to print."""
    return escape_unprintable(record.subject.get("path") or record.subject.get("family") or "generator")


def describe_caveat(record: Record) -> str:
    """The caveat to show beside the verdict; empty if there is none."""
    if record.score.basis == "degeneracy":
        return NO_REAL_DATA
    if record.groups.get("basis") == "between":
        return NO_REFERENCE
    return "wrong scale, not collapse" if "wrong_scale" in record.kinds and record.verdict != "collapsed" else ""


def describe_fraction(value: float) -> str:
    """A fraction in words: .48 -> "about half"."""
    if value < NEGLIGIBLE_FRACTION:
        return "almost none"
    nearest = min(_FRACTIONS, key=lambda entry: abs(entry[0] - value))[1]
    if nearest == "all":
        return "all" if value >= 0.99 else "nearly all"
    return f"about {nearest}"


def summarize_record(record: Record) -> str:
    """The result in one sentence, led by the score."""
    score = record.score
    if score.value is None:
        return describe_score(record)
    estimate = format_estimate({"value": score.value, "low": score.low, "high": score.high})
    return f"Collapse score {estimate}: {describe_score(record)}"


def describe_score(record: Record) -> str:
    """What the score means, without the number."""
    score = record.score
    if score.basis == "groups":
        return _describe_groups(record)
    if score.value is None:
        return "There is no score: the evidence is insufficient."
    if score.basis == "degeneracy":
        return _describe_degeneracy(record)
    if record.verdict == "unrealistic":
        return "variety is not contradicted, but most samples are unlike any real one."
    names = record.table.get("score_of") or ()
    of_what = f"variety of {' × '.join(map(str, names))}" if names else "real variety"
    text = f"{describe_fraction(score.value)} of the {of_what} is missing"
    if record.verdict == "memorised":
        return f"{text}, but the samples are copies of real ones."
    return text + (_describe_doubt(record) if record.verdict == "inconclusive" else ".")


def _describe_groups(record: Record) -> str:
    """What is left of the reference's variety within a group."""
    within = record.groups.get("within")
    if not isinstance(within, Mapping) or within.get("value") is None:
        return "There is no score: one group, and nothing to compare it with."
    kept = format_percent_interval(within)
    if record.groups.get("basis") == "between":
        return (
            f"within a group, samples differ {kept} as much as across groups; no reference says how much they should."
        )
    text = f"within a group, samples keep {kept} of the reference's variety"
    n_collapsed, count = len(record.groups.get("collapsed") or ()), format_value(record.groups.get("count"))
    if n_collapsed:
        text += f"; {n_collapsed} of {count} groups {'has' if n_collapsed == 1 else 'have'} collapsed"
    return text + (_describe_doubt(record) if record.verdict == "inconclusive" else ".")


def format_percent_interval(entry: Mapping[str, Any]) -> str:
    """{value, low, high} as "41 % [37, 45]"; one decimal below 10 %."""
    value, low, high = (entry.get(part) for part in ("value", "low", "high"))
    if not isinstance(value, (int, float)):
        return NOT_AVAILABLE
    digits = 0 if value >= 0.1 or value == 0 else 1
    text = f"{100 * value:.{digits}f} %"
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return text
    return f"{text} [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def _describe_degeneracy(record: Record) -> str:
    value = record.score.value or 0.0
    if record.verdict == "inconclusive":
        return "outputs repeat or lie close together; whether the data do the same is unknown without real data."
    if value < NEGLIGIBLE_FRACTION:
        follow = " and depend on the latent" if _follows_latent(record) else ""
        return f"samples do not repeat{follow}. Whether modes are missing is unknown."
    fraction = describe_fraction(value)
    at_least = f"at least {fraction.removeprefix('about ')}" if fraction.startswith("about ") else fraction
    return f"{at_least} of the variety is lost to repeats, judged by the samples alone."


def _follows_latent(record: Record) -> bool:
    """Whether there is a latent and no finding that it is ignored (GD109)."""
    return bool(record.subject.get("latent")) and all(finding.rule != "GD109" for finding in record.findings)


def _describe_doubt(record: Record) -> str:
    score = record.score
    if score.low is not None and score.high is not None and score.low < score.limit <= score.high:
        has_advice = any(finding.rule == "GD502" for finding in record.findings)
        advice = "" if has_advice else f" {describe_needed_samples(record)}."
        return f", but the interval contains the limit of {format_score(score.limit)}.{advice}"
    if score.list_blind_spots():
        return ", as far as this many samples can show: a loss of half could have been missed."
    return ", but the evidence is insufficient for a verdict."


def describe_counts(score: Score) -> str:
    """ "500 generated against 1,000 real", or "500 generated"."""
    return f"{score.n_fake:,} generated" + (f" against {score.n_real:,} real" if score.n_real else "")


def describe_sample_size(record: Record) -> str:
    """How many samples were used, and which loss they would have detected."""
    score = record.score
    if not score.n_fake:
        return ""
    counts = describe_counts(score)
    if score.basis == "groups":
        return _describe_group_sizes(record)
    seen = _describe_injections(score)
    if seen:
        return f"{counts} samples; {seen}"
    if score.power is None:
        return f"{counts} samples"
    return f"{counts} samples: enough to notice a change of {format_score(score.power)} in the score"


def _describe_injections(score: Score) -> str:
    """Which losses of half would have been seen, by injection into the real data; empty where none were injected."""
    blind = score.list_blind_spots()
    kinds = list(dict.fromkeys(entry["kind"] for entry in score.injected))
    seen = [KIND_OF_LOSS.get(kind, key_to_text(kind)) for kind in kinds if kind not in blind]
    missed = [KIND_OF_LOSS.get(kind, key_to_text(kind)) for kind in blind]
    parts = [f"{word}: {', '.join(entries)}" for word, entries in (("seen", seen), ("missed", missed)) if entries]
    return f"injected into the real data and {' · '.join(parts)}" if parts else ""


def _describe_group_sizes(record: Record) -> str:
    score, count = record.score, format_value(record.groups.get("count"))
    text = f"{count} groups, {score.n_fake:,} samples" + (f" against {score.n_real:,}" if score.n_real else "")
    if not score.power:
        return text
    return f"{text}; a common loss of {format_score(score.power)} is detected with probability 0.95"


def describe_kinds(record: Record) -> list[str]:
    """Each kind with its meaning."""
    return [KIND_TEXT.get(kind, key_to_text(kind)) for kind in record.kinds]
