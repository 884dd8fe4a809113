"""GD301 to GD304 and GD902: unlike the data, copies, wrong wholes, transformed, broken channels. Not collapse."""

from __future__ import annotations

from gandiag.record import MIN_STRUCTURE_GAP, Measurement, Record
from gandiag.verdict.policy import Policy
from gandiag.verdict.record_queries import (
    format_interval,
    format_list,
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
MIN_TRANSFORMED = 0.03  # lower bound of the total variation that a transformation explains
MIN_RATIO_CHANGE = 0.03  # smaller changes of brightness, contrast, color or detail are not mentioned
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


@rule("GD304")
def find_transformation(record: Record, policy: Policy) -> Diagnosis | None:
    """All generated images are the real ones through one smooth transformation: a tone curve, a blur, a resampling."""
    explained = get_measurement(record, "transformation")
    if explained is None or not (explained.low or 0.0) >= MIN_TRANSFORMED:
        return None
    entries = {key: entry for key in RATIO_WORDS if (entry := get_measurement(record, key)) is not None}
    parts = [text for key, entry in entries.items() if (text := _describe_ratio(key, entry))]
    changes = format_list(parts) if parts else "what differs is small"
    text = (
        f"Transformed: against real images, {changes}. One transformation of all images ({explained.reason}) explains "
        "it: fidelity, not lost variety. The score is measured without it. Check preprocessing, output range and "
        "resolution."
    )
    return Diagnosis("warning", text, {key: entry.value for key, entry in entries.items()})


# Measurement -> what a ratio above and below 1 means.
RATIO_WORDS = {
    "brightness_ratio": ("images are {} brighter", "images are {} darker"),
    "contrast_ratio": ("contrast is {} higher", "contrast is {} lower"),
    "color_cast": ("one channel is {} stronger than the others", "one channel is {} weaker than the others"),
    "detail_ratio": ("fine detail is {} stronger", "fine detail is {} weaker"),
}


def _describe_ratio(key: str, entry: Measurement) -> str:
    """A change that is both shown and visible, with its interval; empty for others."""
    value, low, high = (1.0 if part is None else part for part in (entry.value, entry.low, entry.high))
    if abs(value - 1) < MIN_RATIO_CHANGE or low <= 1 <= high:
        return ""
    words = RATIO_WORDS[key][0 if value > 1 else 1].format(f"about {format_percent(abs(value - 1))}")
    return f"{words} (ratio {value:.2f} {format_interval(low, high)})"


@rule("GD902")
def find_constant_channels(record: Record, policy: Policy) -> Diagnosis | None:
    """Output channels that never change."""
    count = get_value(record, "constant_channels")
    if not count:
        return None
    if (record.subject.get("output") or {}).get("kind") != "image":
        text = (
            f"{count:.0f} output column{'s have' if count > 1 else ' has'} the same value in every sample. "
            "Check whether the real data vary there."
        )
        return Diagnosis("note", text, {"constant_channels": count})
    text = (
        f"{count:.0f} output channel{'s have' if count > 1 else ' has'} the same value in every sample: "
        "look for an alpha channel, or an output layer that was not loaded."
    )
    return Diagnosis("warning", text, {"constant_channels": count})
