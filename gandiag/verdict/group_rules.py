"""GD110 to GD113: variety within groups (prompts, classes, source images) against a reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gandiag.record import Record
from gandiag.verdict.policy import Policy, get_collapsed_groups
from gandiag.verdict.record_queries import format_interval, format_list, format_percent
from gandiag.verdict.rule_base import Diagnosis, Rule, rule

# Upper bound of a ratio to the reference below which an input changes nothing.
MAX_IGNORED_RATIO = 0.05
# Upper bound of the variety between groups below which the condition changes nothing, if the lower one is 0.
MAX_IGNORED_CONDITION = 0.2
MAX_NAMED_GROUPS = 5
MAX_EQUAL_RATIO = 0.01  # of the distance across groups: below it, the outputs of a group are the same


def get_ratio(record: Record, name: str) -> tuple[float, float, float] | None:
    """(value, low, high) of `groups.within` or `groups.between`; None where there is none."""
    entry = record.groups.get(name)
    if not isinstance(entry, Mapping):
        return None
    value, low, high = (entry.get(part) for part in ("value", "low", "high"))
    if not isinstance(value, (int, float)) or not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return None
    return value, low, high


def has_reference(record: Record) -> bool:
    """Whether the groups were compared with those of a reference."""
    return record.groups.get("basis") == "reference"


@rule("GD110", kind="conditional")
def find_ignored_seed(record: Record, policy: Policy) -> Diagnosis | None:
    """Within a group all samples are the same, although those of the reference differ."""
    ratio = get_ratio(record, "within")
    if ratio is None or not has_reference(record) or not ratio[2] < MAX_IGNORED_RATIO:
        return None
    share = format_percent(ratio[0])
    text = f"The seed changes nothing: within a group, samples keep {share} of the reference's variety."
    return Diagnosis("error", text, {"within": ratio[0]})


@rule("GD111", kind="conditional")
def find_collapsed_groups(record: Record, policy: Policy) -> Diagnosis | None:
    """Groups of which at least half of the variety is shown to be gone, the false discovery rate held."""
    named = get_collapsed_groups(record)
    if not named:
        return None
    worst = format_list([_describe_group(row) for row in named[:MAX_NAMED_GROUPS]])
    verb = "has" if len(named) == 1 else "have"
    count = f"{len(named)} of {record.groups.get('count')} groups {verb} lost more than half of the variety"
    rest = ", worst first" if len(named) > 1 else ""
    more = f" and {len(named) - MAX_NAMED_GROUPS} more" if len(named) > MAX_NAMED_GROUPS else ""
    text = f"Collapsed groups: {count}{rest}: {worst}{more}."
    return Diagnosis("error", text, {"groups": len(named), "worst": named[0].get("ratio")})


def _describe_group(row: Mapping[str, Any]) -> str:
    kept = float(row.get("ratio") or 0.0)
    return f"{row.get('group')} (keeps {format_percent(kept)})"


@rule("GD112")
def find_ignored_condition(record: Record, policy: Policy) -> Diagnosis | None:
    """Groups hardly differ from each other, although those of the reference do."""
    if has_reference(record):
        ratio = get_ratio(record, "between")
        if ratio is None or ratio[1] > 0 or not ratio[2] < MAX_IGNORED_CONDITION:
            return None
        share = format_percent(ratio[0])
        text = f"The condition changes nothing: groups differ only {share} as much as those of the reference do."
        return Diagnosis("error", text, {"between": ratio[0]})
    ratio, floor = get_ratio(record, "within"), record.groups.get("floor") or {}
    if ratio is None or floor.get("low") is None or not ratio[0] >= floor["low"]:
        return None
    text = "No effect of the condition is seen: samples of one group differ as much as samples of shuffled groups do."
    return Diagnosis("warning", text, {"within": ratio[0], "shuffled": floor["low"]})


@rule("GD113")
def find_missing_reference(record: Record, policy: Policy) -> Diagnosis | None:
    """Without a reference nothing says how much variety there should be."""
    if record.groups.get("basis") != "between":
        return None
    ratio, floor = get_ratio(record, "within"), record.groups.get("floor") or {}
    if ratio is None:
        text = "One group and no reference: there is nothing to compare its variety with"
    else:
        text = (
            f"Within a group, samples differ {format_percent(ratio[0])} {format_interval(*ratio[1:])} as much as across"
        )
        if floor.get("low") is not None:
            text += f" groups (with shuffled groups {format_percent(floor['low'])})"
    text += ". That is a fact and no verdict: pass the teacher, the base model or the last release with --against."
    equal = _list_equal_groups(record)
    if equal and ratio is not None:
        more = f" and {len(equal) - MAX_NAMED_GROUPS} more" if len(equal) > MAX_NAMED_GROUPS else ""
        named = f"{format_list(equal[:MAX_NAMED_GROUPS])}{more}"
        text = f"All outputs are the same in {len(equal)} of {record.groups.get('count')} groups: {named}. {text}"
    return Diagnosis("warning" if equal else "note", text, {} if ratio is None else {"within": ratio[0]})


def _list_equal_groups(record: Record) -> list[str]:
    """Names of the groups whose samples hardly differ, compared with samples of different groups."""
    rows = [row for row in record.groups.get("rows") or () if isinstance(row, Mapping)]
    return [str(row.get("group")) for row in rows if (row.get("ratio") or 0.0) < MAX_EQUAL_RATIO]


@rule("GD114")
def find_still_reference(record: Record, policy: Policy) -> Diagnosis | None:
    """Neither subject nor reference varies within a group, so nothing can be lost."""
    rows = record.groups.get("rows") or ()
    if not rows or not has_reference(record) or not all(row.get("still") for row in rows):
        return None
    text = (
        "Neither the subject nor the reference varies within a group: both are deterministic, and nothing can be lost."
    )
    return Diagnosis("note", text)


GROUP_RULES: tuple[Rule, ...] = (
    find_ignored_seed,
    find_collapsed_groups,
    find_ignored_condition,
    find_missing_reference,
    find_still_reference,
)
