"""GD301 to GD303 and GD902: samples unlike the data, copies, wrong wholes, broken output channels. Not collapse."""

from __future__ import annotations

from gandiag.record import MIN_STRUCTURE_GAP, Record
from gandiag.verdict.policy import Policy
from gandiag.verdict.record_queries import (
    format_interval,
    format_percent,
    get_copies,
    get_estimate,
    get_measurement,
    get_value,
    is_collapsed,
    is_memorised,
)
from gandiag.verdict.rule_base import Diagnosis, rule

MIN_OFF_MANIFOLD = 0.1  # lower bound of the share of samples off the manifold
MIN_MEMORIZED = 0.05  # lower bound of the share of copies, above the floor


@rule("GD301", kind="off_distribution")
def find_off_distribution_samples(record: Record, policy: Policy) -> Diagnosis | None:
    """Samples far from all real data: a fidelity problem, which is not collapse."""
    share, low, high = get_estimate(record.profile, "off_manifold")
    if low < MIN_OFF_MANIFOLD:
        return None
    text = (
        f"Low fidelity: {format_percent(share)} {format_interval(low, high)} of the samples can be told from real "
        "ones. This is not collapse and does not raise the score."
    )
    precision = get_value(record, "precision")
    if precision is not None and precision > 1 - low:
        text += f" (Precision is {precision:.2f}: it asks only whether a sample lies near some real one.)"
    if record.verdict == "unrealistic":
        text += " Too few resemble the data for their variety to say much about it: improve fidelity first."
    return Diagnosis("note" if is_collapsed(record) else "warning", text, {"off_manifold": share})


@rule("GD302", kind="memorised")
def find_memorization(record: Record, policy: Policy) -> Diagnosis | None:
    """Outputs that are copies of the real data."""
    copies, exact = get_copies(record), get_measurement(record, "exact_copies")
    if copies is None or (copies.low or 0.0) < MIN_MEMORIZED + (copies.floor or 0.0):
        return None
    text = f"Memorization: {format_percent(copies.value or 0)} of the samples are copies of a real sample, "
    evidence = {"memorised": copies.value, "floor": copies.floor}
    if exact is not None and exact.value:
        evidence["exact_copies"] = exact.value
        text += f"{format_percent(exact.value)} exactly equal to it"
    else:
        text += "far closer to it than real samples are to each other"
    text += f" ({copies.reason})." if copies.reason else "."
    if is_memorised(record):
        text += " Their variety is that of the real data, not the generator's own."
    return Diagnosis("error" if is_memorised(record) else "warning", text, evidence)


@rule("GD303")
def find_structure_gap(record: Record, policy: Policy) -> Diagnosis | None:
    """Parts pass for real, wholes do not."""
    gap = get_measurement(record, "structure_gap")
    if gap is None or not (gap.low or 0.0) >= MIN_STRUCTURE_GAP:
        return None
    wholes, patches = get_value(record, "unreal_wholes"), get_value(record, "patch_distance")
    text = (
        f"Parts pass for real, wholes do not: {format_percent(wholes or 0)} of the images are arranged like no real "
        f"one, while their patches differ from real ones by {format_percent(patches or 0)} "
        f"(structure gap {gap.value:.2f} {format_interval(gap.low, gap.high)}). Look for misplaced, doubled or missing "
        "parts. This is not collapse and does not raise the score."
    )
    return Diagnosis("warning", text, {"structure_gap": gap.value, "unreal_wholes": wholes, "patch_distance": patches})


@rule("GD902")
def find_constant_channels(record: Record, policy: Policy) -> Diagnosis | None:
    """Output channels that never change."""
    count = get_value(record, "constant_channels")
    if not count:
        return None
    if (record.subject.get("output") or {}).get("kind") != "image":
        text = (
            f"{count:.0f} output columns have the same value in every sample. Check whether the real data vary there."
        )
        return Diagnosis("note", text, {"constant_channels": count})
    text = (
        f"{count:.0f} output channel{'s have' if count > 1 else ' has'} the same value in every sample: "
        "look for an alpha channel, or an output layer that was not loaded."
    )
    return Diagnosis("warning", text, {"constant_channels": count})
