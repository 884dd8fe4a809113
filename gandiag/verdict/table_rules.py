"""GD151 to GD154, GD351 to GD353: columns of tables that lost variety; associations; invented and copied values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gandiag.record import Record
from gandiag.verdict.policy import Policy
from gandiag.verdict.record_queries import (
    format_interval,
    format_percent,
    get_estimate,
    get_measurement,
    is_collapsed,
)
from gandiag.verdict.rule_base import Diagnosis, FindingLevel, Rule, rule

MIN_COLUMN_LOSS = 0.08  # lower bound of the loss of a column or pair that is a finding
MIN_OWN_PAIR_LOSS = 0.05  # of a pair beyond that of its columns
MIN_ASSOCIATION_LOST = 0.15  # lower bound of the change of a correlation or of Cramér's V
MIN_UNSEEN_SHARE = 0.01  # of generated rows with a category that the data do not have
MIN_COPIED_ROWS = 0.05  # lower bound of the share of generated rows that are copies, above the floor
MIN_CLOSER_TO_TRAINING = 0.55  # lower bound of the share of rows nearer to training than to held-out rows
MAX_NAMED = 5  # columns, pairs or values in one sentence

Entry = Mapping[str, Any]


def _columns(record: Record) -> Sequence[Entry]:
    """The record's columns, the largest loss first."""
    return sorted(record.table.get("columns") or (), key=lambda entry: -get_estimate(entry, "loss")[0])


def _pairs(record: Record) -> Sequence[Entry]:
    return record.table.get("pairs") or ()


def _level(record: Record) -> FindingLevel:
    return "error" if is_collapsed(record) else "warning"


def _join(parts: Sequence[str]) -> str:
    hidden = len(parts) - MAX_NAMED
    return "; ".join(parts[:MAX_NAMED]) + (f"; and {hidden} more" if hidden > 0 else "")


@rule("GD151", kind="lost_values")
def find_values_never_made(record: Record, policy: Policy) -> Diagnosis | None:
    """Categories or ranges of a column that the generator never makes."""
    lacking = [entry for entry in _columns(record) if entry.get("never_made") and not entry.get("constant")]
    if not lacking:
        return None
    parts = [_describe_never_made(entry) for entry in lacking]
    shares = {str(entry["name"]): entry.get("never_made_share") for entry in lacking[:MAX_NAMED]}
    return Diagnosis(_level(record), f"Values never made: {_join(parts)}.", shares)


def _describe_never_made(entry: Entry) -> str:
    """ "cut: Fair, Good never made (15 % of the real rows)"."""
    values = [str(value) for value in entry["never_made"]]
    more = f" and {len(values) - MAX_NAMED} more" if len(values) > MAX_NAMED else ""
    share = format_percent(float(entry.get("never_made_share") or 0.0))
    return f"{entry['name']}: {', '.join(values[:MAX_NAMED])}{more} never made ({share} of the real rows)"


@rule("GD152", kind="constant_columns")
def find_constant_columns(record: Record, policy: Policy) -> Diagnosis | None:
    """Columns that have one value in every generated row, and vary in the real data."""
    names = [str(entry["name"]) for entry in _columns(record) if entry.get("constant")]
    if not names:
        return None
    listed = ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")
    verbs = ("has", "varies") if len(names) == 1 else ("have", "vary")
    text = (
        f"Constant columns: {listed} {verbs[0]} the same value in every generated row and {verbs[1]} in the real data."
    )
    return Diagnosis(_level(record), text, {"constant": len(names)})


@rule("GD153", kind="lost_values")
def find_combinations_never_made(record: Record, policy: Policy) -> Diagnosis | None:
    """Combinations of two columns that are never made, although each column alone has its values."""
    alone = {str(entry["name"]): get_estimate(entry, "loss")[0] for entry in _columns(record)}
    lacking = []
    for entry in _pairs(record):
        value, low, _ = get_estimate(entry, "loss")
        explained = max(alone.get(str(name), 0.0) for name in entry["names"])
        if low >= MIN_COLUMN_LOSS and value >= explained + MIN_OWN_PAIR_LOSS:
            lacking.append(entry)
    if not lacking:
        return None
    lacking.sort(key=lambda entry: -get_estimate(entry, "loss")[0])
    parts = [
        f"{' × '.join(entry['names'])} {format_percent(value)} {format_interval(low, high)}"
        for entry in lacking
        for value, low, high in [get_estimate(entry, "loss")]
    ]
    text = f"Combinations never made, as a share of the real rows: {_join(parts)}."
    evidence = {" × ".join(entry["names"]): get_estimate(entry, "loss")[0] for entry in lacking[:MAX_NAMED]}
    return Diagnosis(_level(record), text, evidence)


@rule("GD154")
def find_narrow_columns(record: Record, policy: Policy) -> Diagnosis | None:
    """Columns that are narrower than in the real data, or whose categories are out of proportion."""
    narrow = [
        entry
        for entry in _columns(record)
        if get_estimate(entry, "loss")[1] >= MIN_COLUMN_LOSS
        and not entry.get("constant")
        and float(entry.get("never_made_share") or 0.0) < 0.5 * get_estimate(entry, "loss")[0]
    ]
    if not narrow:
        return None
    parts = []
    for entry in narrow:
        value, low, high = get_estimate(entry, "loss")
        is_width = float(entry.get("narrowed") or 0.0) >= float(entry.get("short") or 0.0)
        what = "of its width" if is_width else "of its variety, in values made too rarely"
        parts.append(f"{entry['name']} has lost {format_percent(value)} {format_interval(low, high)} {what}")
    evidence = {str(entry["name"]): get_estimate(entry, "loss")[0] for entry in narrow[:MAX_NAMED]}
    return Diagnosis(_level(record), f"Columns with less variety: {_join(parts)}.", evidence)


@rule("GD351")
def find_changed_associations(record: Record, policy: Policy) -> Diagnosis | None:
    """Pairs of columns that are associated in the real data and not in the generated, or the reverse."""
    changed = []
    for entry in _pairs(record):
        _, low, high = get_estimate(entry, "association_lost")
        if low >= MIN_ASSOCIATION_LOST or high <= -MIN_ASSOCIATION_LOST:
            changed.append(entry)
    if not changed:
        return None
    changed.sort(key=lambda entry: -abs(get_estimate(entry, "association_lost")[0]))
    parts = []
    for entry in changed:
        value, low, high = get_estimate(entry, "association_lost")
        verb = "lost" if value > 0 else "invented"
        before, after = (float(entry["association"][side]) for side in ("real", "fake"))
        interval = format_interval(low, high)
        parts.append(
            f"{' – '.join(entry['names'])} {verb}: {before:.2f} real, {after:.2f} generated, change {interval}"
        )
    evidence = {" – ".join(entry["names"]): get_estimate(entry, "association_lost")[0] for entry in changed[:MAX_NAMED]}
    text = f"Associations of columns: {_join(parts)}. This is fidelity and does not raise the score."
    return Diagnosis("warning", text, evidence)


@rule("GD352")
def find_unseen_categories(record: Record, policy: Policy) -> Diagnosis | None:
    """Generated rows with categories that the real data do not have."""
    unseen = {str(entry["name"]): float(entry.get("unseen") or 0.0) for entry in _columns(record)}
    shares = {name: share for name, share in unseen.items() if share >= MIN_UNSEEN_SHARE}
    if not shares:
        return None
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    parts = [f"{name} in {format_percent(share)} of the generated rows" for name, share in ranked]
    text = f"Categories that the real data do not have: {_join(parts)}. Check spelling and decoding."
    return Diagnosis("warning", text, dict(ranked[:MAX_NAMED]))


@rule("GD353")
def find_copied_rows(record: Record, policy: Policy) -> Diagnosis | None:
    """Generated rows that equal training rows, or are nearer to them than to held-out real rows."""
    copied, nearer = get_measurement(record, "copied_rows"), get_measurement(record, "closer_to_training")
    parts, evidence = [], {}
    if copied is not None and (copied.low or 0.0) >= MIN_COPIED_ROWS + (copied.floor or 0.0):
        evidence["copied_rows"] = copied.value
        interval = format_interval(copied.low, copied.high)
        parts.append(
            f"{format_percent(copied.value or 0)} {interval} of the generated rows equal a training row, against "
            f"{format_percent(copied.floor or 0)} of real rows"
        )
    if nearer is not None and (nearer.low or 0.0) >= MIN_CLOSER_TO_TRAINING:
        evidence["closer_to_training"] = nearer.value
        interval = format_interval(nearer.low, nearer.high)
        share = format_percent(nearer.value or 0)
        parts.append(f"{share} {interval} are nearer to a training row than to a held-out one, where half is expected")
    if not parts:
        return None
    return Diagnosis("warning", f"Copied rows: {'; '.join(parts)}.", evidence)


TABLE_COLLAPSE_RULES: tuple[Rule, ...] = (
    find_constant_columns,
    find_values_never_made,
    find_combinations_never_made,
    find_narrow_columns,
)
TABLE_FIDELITY_RULES: tuple[Rule, ...] = (find_changed_associations, find_unseen_categories, find_copied_rows)
