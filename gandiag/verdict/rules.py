"""The rules: from a record's facts to findings with codes. Each rule is a function of the Record that returns a Finding or None.

GD1xx  which kind of collapse      GD2xx  the latent      GD3xx  fidelity and memory
GD4xx  trust in the loading        GD5xx  strength of the evidence      GD6xx  among the baselines      GD7xx  the training      GD9xx  broken output
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from gandiag.record import Finding, Record
from gandiag.verdict.duality_gap_rules import GAME_RULES
from gandiag.verdict.nearest_baseline import find_closest_baseline
from gandiag.verdict.policy import Policy, compute_score_verdict, get_loading_mismatch, get_undecided_assumptions
from gandiag.verdict.record_queries import (
    format_interval,
    format_percent,
    get_estimate,
    get_measurement,
    get_trained_scale,
    get_value,
    has_wrong_scale,
)
from gandiag.verdict.training_rules import TRAINING_RULES

Rule = Callable[[Record, Policy], Finding | None]

# A factor of the profile is a finding of its own when its lower bound passes this.
MIN_FACTOR = 0.08
# Adjusted Rand index of the clusters of different halves, from which they are the data's own.
MIN_STABILITY = 0.9
# Mean pairwise distance below this share of the real one: one output, for every purpose.
MAX_DISTANCE_RATIO = 0.1
# Share of the samples that repeat another, beyond which all are one output.
MIN_REPEATED_FRACTION = 0.95


def is_collapsed(record: Record) -> bool:
    """Whether the verdict is collapse."""
    return record.verdict == "collapsed"


def find_complete_collapse(record: Record, policy: Policy) -> Finding | None:
    """GD101: every latent gives the same output."""
    if not is_collapsed(record) or not is_complete_collapse(record):
        return None
    distance, same = get_measurement(record, "pairwise_distance"), get_value(record, "degeneracy")
    evidence: dict[str, float | None] = {
        "score": record.score.value,
        "degeneracy": same,
        "near_duplicates": get_value(record, "near_duplicates"),
    }
    text = "Complete collapse: every latent gives the same output"
    if distance is not None and distance.floor:
        evidence |= {"pairwise_distance": distance.value, "real": distance.floor}
        text += f"; the outputs lie {format_percent((distance.value or 0) / distance.floor)} as far apart as real samples do"
    text += "."
    return Finding("GD101", "error", text, evidence)


def is_complete_collapse(record: Record) -> bool:
    """One output: hardly any distance between samples, or samples that look or are the same."""
    distance = get_measurement(record, "pairwise_distance")
    if distance is not None and distance.floor and (distance.value or 0.0) < MAX_DISTANCE_RATIO * distance.floor:
        return True
    same = get_measurement(record, "degeneracy")
    low = record.score.low if record.score.basis == "degeneracy" else None if same is None else same.low
    return low is not None and low >= MIN_REPEATED_FRACTION


def find_mode_dropping(record: Record, policy: Policy) -> Finding | None:
    """GD103: regions of the data that the generator never produces, unless every one of several stable clusters is served: then they lie inside them."""
    share, low, high = get_estimate(record.profile, "missing")
    if not is_collapsed(record) or is_complete_collapse(record) or low < MIN_FACTOR or covers_all_clusters(record):
        return None
    missed = record.modes.get("missed") or []
    text = f"Mode dropping: {format_percent(share)} {format_interval(low, high)} of the real data has no counterpart among the samples"
    if missed:
        text += f"; {len(missed)} of {record.modes.get('found')} clusters are missing or starved"
    counted = (
        {} if record.modes.get("covered") is None else {"modes_missed": len(missed)}
    )  # None: too few samples lie near real ones
    return Finding("GD103", "error", text + ".", {"missing": share, **counted})


def _factor(code: str, name: str, text: str) -> Rule:
    def rule(record: Record, policy: Policy) -> Finding | None:
        share, low, high = get_estimate(record.profile, name)
        if not is_collapsed(record) or is_complete_collapse(record) or low < MIN_FACTOR:
            return None
        return Finding(
            code, "error", text.format(share=format_percent(share), span=format_interval(low, high)), {name: share}
        )

    rule.__doc__ = f"{code}: {name}."
    return rule


def find_intra_mode_collapse(record: Record, policy: Policy) -> Finding | None:
    """GD104: modes narrower than the real ones, or of which parts are never produced."""
    if not is_collapsed(record) or is_complete_collapse(record):
        return None
    lost, texts = {}, []
    (width, *around), (share, *about) = (
        get_estimate(record.profile, "narrowed"),
        get_estimate(record.profile, "missing"),
    )
    if around[0] >= MIN_FACTOR:
        lost["narrowed"] = width
        texts.append(
            f"within its modes the generator has lost {format_percent(width)} {format_interval(*around)} of the real width"
        )
    if about[0] >= MIN_FACTOR and covers_all_clusters(record):
        lost["missing"] = share
        texts.append(
            f"all {record.modes['found']} clusters are served, yet {format_percent(share)} {format_interval(*about)} of the real data, inside them, has no counterpart"
        )
    return Finding("GD104", "error", f"Thin modes: {'; '.join(texts)}.", lost) if texts else None


def covers_all_clusters(record: Record) -> bool:
    """Are there several clusters, found again in other halves of the data, and samples in each of them?"""
    found, covered = (record.modes.get(name) or 0 for name in ("found", "covered"))
    return (
        found >= 2
        and covered == found
        and not record.modes.get("missed")
        and (record.modes.get("stability") or 0.0) >= MIN_STABILITY
    )


find_repeated_outputs = _factor(
    "GD105",
    "duplicated",
    "Recycled outputs: {share} {span} of the variety is lost to repeats of the same outputs from different latents.",
)
find_mode_imbalance = _factor(
    "GD106", "skewed", "Skewed modes: {share} {span} of the mass sits in other modes than in the real data."
)


def find_aspect_collapse(record: Record, policy: Policy) -> Finding | None:
    """GD102: partial collapse in the sense of practitioners: same colour, same texture, same structure."""
    lost = {name: get_estimate(record.aspects, name) for name in record.aspects}
    named = {name: part for name, part in lost.items() if part[1] >= policy.limit}
    if not is_collapsed(record) or is_complete_collapse(record) or not named:
        return None
    parts = ", ".join(
        f"{name} {format_percent(part[0])}" for name, part in sorted(named.items(), key=lambda item: -item[1][0])
    )
    return Finding(
        "GD102",
        "error",
        f"Partial collapse, same {' and '.join(sorted(named))}: share of the real variety missing by aspect: {parts}.",
        {name: part[0] for name, part in lost.items()},
    )


def find_degeneracy(record: Record, policy: Policy) -> Finding | None:
    """GD108: without real data: outputs repeat, or do not follow z."""
    if not is_collapsed(record) or record.score.basis != "degeneracy" or is_complete_collapse(record):
        return None
    share = record.score.value or 0.0
    return Finding(
        "GD108",
        "error",
        f"Degenerate: at least {format_percent(share)} of the variety is lost to outputs that repeat.",
        {"score": share},
    )


def find_class_collapse(record: Record, policy: Policy) -> Finding | None:
    """GD107: classes whose outputs hardly vary although the mixture does."""
    bad = [row for row in record.classes if (row.get("low") or 0.0) >= policy.limit]
    if not bad:
        return None
    names = ", ".join(str(row["label"]) for row in bad[:5])
    level = "error" if is_collapsed(record) else "warning"
    text = f"Conditional collapse: {len(bad)} of {len(record.classes)} classes have lost variety, worst first: {names}."
    return Finding("GD107", level, text, {"classes": len(bad), "worst": bad[0].get("score")})  # type: ignore[arg-type]


def find_ignored_input(record: Record, policy: Policy) -> Finding | None:
    """GD109: the class does nothing, or z does nothing given the class."""
    label, latent = get_measurement(record, "class_response"), get_measurement(record, "z_ignored")
    if label is not None and label.high is not None and label.high < 0.05:
        return Finding(
            "GD109",
            "warning",
            f"The class is ignored: another class changes the output {format_percent(label.value or 0)} as much as another z does.",
            {"class_response": label.value},
        )
    if latent is not None and latent.high is not None and latent.high < 0.05:
        text = f"z is ignored given the class: in one class the outputs lie {format_percent(latent.value or 0)} as far apart as in the mixture ({latent.reason})."
        return Finding("GD109", "error", text, {"z_ignored": latent.value})
    return None


def find_wrong_latent_scale(record: Record, policy: Policy) -> Finding | None:
    """GD201: trained at one latent scale, sampled at another."""
    trained = get_trained_scale(record)
    if trained is None or not has_wrong_scale(record):
        return None
    sampled = record.subject["latent"]["scale"]
    other = get_measurement(record, f"score@{sampled:g}")
    claim = {"healthy": "Wrong latent scale, not collapse", "not_degenerate": "Wrong latent scale, not degenerate"}.get(
        record.verdict, "Wrong latent scale"
    )
    text = f"{claim}: trained at σ ≈ {trained['value']:.3g}, sampled at σ = {sampled:g}."
    if is_collapsed(record):
        text += " It is collapsed at the trained scale too."
    if other is not None:
        text += f" At σ = {sampled:g} the score is {other.value:.2f} {format_interval(other.low, other.high)},"
        text += (
            f" at the trained scale {record.score.value:.2f} {format_interval(record.score.low, record.score.high)}."
        )
    text += f" Sample with z × {trained['value']:.3g} (--scale {trained['value']:.3g})."
    return Finding(
        "GD201",
        "error",
        text,
        {"trained": trained["value"], "low": trained["low"], "high": trained["high"], "sampled": sampled},
    )


def find_missing_scale_response(record: Record, policy: Policy) -> Finding | None:
    """GD203: the output does not change when z is scaled."""
    if record.response.get("axis") is not None or not record.response.get("reason"):
        return None
    return Finding("GD203", "note", f"No scale sweep: {record.response['reason']}.".replace("..", "."), {})


def find_off_distribution_samples(record: Record, policy: Policy) -> Finding | None:
    """GD301: samples where no real data is: a fidelity problem, which is not collapse."""
    share, low, high = get_estimate(record.profile, "off_manifold")
    if low < 0.1:
        return None
    level = "note" if is_collapsed(record) else "warning"
    text = f"Off the data's manifold: {format_percent(share)} {format_interval(low, high)} of the samples; this is fidelity, and does not raise the score."
    return Finding("GD301", level, text, {"off_manifold": share})  # type: ignore[arg-type]


def find_memorization(record: Record, policy: Policy) -> Finding | None:
    """GD302: outputs that are copies of the real data given."""
    copies = get_measurement(record, "memorised")
    if copies is None or (copies.low or 0.0) < 0.05 + (copies.floor or 0.0):
        return None
    return Finding(
        "GD302",
        "warning",
        f"{format_percent(copies.value or 0)} of the samples copy a real sample more closely than real samples resemble each other.",
        {"memorised": copies.value, "floor": copies.floor},
    )


def find_loading_mismatch(record: Record, policy: Policy) -> Finding | None:
    """GD401: a mis-rebuilt generator looks exactly like a collapsed one."""
    mismatch = get_loading_mismatch(record, policy)
    if mismatch is None:
        return _open_questions(record, policy)
    text = (
        f"Cannot separate a loading error from collapse: the rebuilt network disagrees with the checkpoint's own batch-norm statistics "
        f"(mismatch {mismatch:.2g}, a correct rebuild stays below 0.15). Check --activation, --bn-eps, --prior and --image-size."
    )
    return Finding("GD401", "error", text, {"bn_mismatch": mismatch})


def _open_questions(record: Record, policy: Policy) -> Finding | None:
    entries = get_undecided_assumptions(record)
    if not entries:
        return None
    flags = ", ".join(
        dict.fromkeys(flag for entry in entries for flag in re.findall(r"--[a-z-]+", str(entry.get("what"))))
    )
    said = "; ".join(
        f"{str(entry.get('what')).split(' (')[0]}: {str(entry.get('value')).split(' (')[0]}" for entry in entries
    )
    in_doubt = record.verdict == "inconclusive" and compute_score_verdict(record.score, policy.limit) == "collapsed"
    lead = "Cannot separate a loading error from collapse" if in_doubt else "Something about the network was guessed"
    text = f"{lead}: the batch-norm statistics do not decide what the weights leave open ({said}). Say it{f': {flags}' if flags else ''}."
    return Finding(
        "GD401", "error" if in_doubt else "warning", text, {entry["what"]: entry.get("value") for entry in entries}
    )


def find_embedded_code(record: Record, policy: Policy) -> Finding | None:
    """GD402: the file carries code beside its weights."""
    notes = record.subject.get("notes") or ()
    return (
        Finding("GD402", "note", " ".join(f"{note}." if not note.endswith(".") else note for note in notes), {})
        if notes
        else None
    )


def find_insufficient_evidence(record: Record, policy: Policy) -> Finding | None:
    """GD501: the evidence is too weak for a verdict, and why."""
    reasons = record.provenance.get("doubts") or ()
    if record.verdict != "inconclusive" or not reasons:
        return None
    return Finding("GD501", "error", "Inconclusive: " + "; ".join(reasons) + ".", {})


def find_limit_in_interval(record: Record, policy: Policy) -> Finding | None:
    """GD502: the interval contains the limit."""
    score = record.score
    if (
        record.verdict != "inconclusive"
        or score.low is None
        or score.high is None
        or not score.low < policy.limit <= score.high
    ):
        return None
    needed = score.required_samples()
    more = f"about {needed:,} generated samples are needed (-n {needed})" if needed else "more samples are needed (-n)"
    text = f"The interval {format_interval(score.low, score.high)} contains the limit {policy.limit:g}: {more}, and twice as many real ones."
    return Finding("GD502", "warning", text, {"low": score.low, "high": score.high, "n": score.n_fake})


def find_missing_real_data(record: Record, policy: Policy) -> Finding | None:
    """GD503: without real data, missing modes cannot be seen."""
    if record.score.basis != "degeneracy":
        return None
    return Finding(
        "GD503",
        "note",
        "No real data: only repeats and insensitivity to z can be seen. Missing modes cannot: give --real.",
        {},
    )


def find_failed_metrics(record: Record, policy: Policy) -> Finding | None:
    """GD504: metrics that raised."""
    broken: Mapping[str, str | None] = {
        key: item.reason for key, item in record.measurements.items() if item.status == "error"
    }
    if not broken:
        return None
    return Finding(
        "GD504",
        "warning",
        "Not computed: " + "; ".join(f"{key} ({reason})" for key, reason in broken.items()) + ".",
        {"metrics": len(broken)},
    )


def find_constant_channels(record: Record, policy: Policy) -> Finding | None:
    """GD902: a channel that never changes."""
    found = get_value(record, "constant_channels")
    return (
        None
        if not found
        else Finding(
            "GD902",
            "warning",
            f"{found:.0f} output channels have the same value everywhere.",
            {"constant_channels": found},
        )
    )


RULES: tuple[Rule, ...] = (
    find_loading_mismatch,
    find_insufficient_evidence,
    find_wrong_latent_scale,
    find_complete_collapse,
    find_aspect_collapse,
    find_mode_dropping,
    find_intra_mode_collapse,
    find_repeated_outputs,
    find_mode_imbalance,
    find_degeneracy,
    find_class_collapse,
    find_ignored_input,
    find_limit_in_interval,
    find_off_distribution_samples,
    find_memorization,
    find_constant_channels,
    find_failed_metrics,
    find_missing_scale_response,
    find_missing_real_data,
    find_embedded_code,
    *TRAINING_RULES,
    *GAME_RULES,
    find_closest_baseline,
)

RULE_KINDS = {
    "GD101": "complete",
    "GD103": "mode_dropping",
    "GD104": "thin_modes",
    "GD105": "recycled",
    "GD106": "skewed",
    "GD107": "conditional",
    "GD109": "conditional",
    "GD201": "wrong_scale",
    "GD301": "off_distribution",
}
