"""GD101 to GD109: which kind of collapse it is."""

from __future__ import annotations

from gandiag.record import EQUAL_OUTPUTS, Record
from gandiag.verdict.policy import Policy
from gandiag.verdict.record_queries import (
    format_interval,
    format_list,
    format_percent,
    get_estimate,
    get_measurement,
    get_value,
    is_collapsed,
)
from gandiag.verdict.rule_base import Diagnosis, Rule, rule

# Lower bound from which a factor of the profile is a finding of its own.
MIN_FACTOR = 0.08
# Adjusted Rand index between clusterings of different halves from which the clusters are a property of the data.
MIN_STABILITY = 0.9
# Mean pairwise distance, relative to the real one, below which all outputs count as one.
MAX_DISTANCE_RATIO = 0.1
# Share of repeated samples from which all outputs count as one.
MIN_REPEATED_FRACTION = 0.95
# Lower bound of the share of repeats from which they are a finding without real data.
MIN_DEGENERACY = 0.02
# Names of missing classes in a sentence.
MAX_NAMES = 5
# Share of the samples from which the most frequent output is mentioned.
MIN_LARGEST_SHARE = 0.05
# Upper bound below which an input of the generator counts as ignored.
MAX_IGNORED_RESPONSE = 0.05


def is_complete_collapse(record: Record) -> bool:
    """Whether the generator makes one output: samples almost without distance, or almost all of them repeats."""
    if record.score.basis == "groups":  # groups may still differ from each other: GD110
        return False
    distance = get_measurement(record, "pairwise_distance")
    if distance is not None and distance.floor and (distance.value or 0.0) < MAX_DISTANCE_RATIO * distance.floor:
        return True
    largest = get_measurement(record, "largest_repeat")
    if largest is not None:
        return largest.low is not None and largest.low >= MIN_REPEATED_FRACTION
    low = record.score.low
    if record.score.basis != "degeneracy":
        degeneracy = get_measurement(record, "degeneracy")
        low = None if degeneracy is None else degeneracy.low
    return low is not None and low >= MIN_REPEATED_FRACTION


def is_partial_collapse(record: Record) -> bool:
    """Whether the verdict is collapse and some diversity is left."""
    return is_collapsed(record) and not is_complete_collapse(record)


def covers_all_clusters(record: Record) -> bool:
    """Whether the data have several clusters, reproducible on other halves of the data, all reached by the samples."""
    found, covered = (record.modes.get(name) or 0 for name in ("found", "covered"))
    return (
        found >= 2
        and covered == found
        and not record.modes.get("missed")
        and (record.modes.get("stability") or 0.0) >= MIN_STABILITY
    )


@rule("GD101", kind="complete")
def find_complete_collapse(record: Record, policy: Policy) -> Diagnosis | None:
    """Every latent gives the same output."""
    if not is_collapsed(record) or not is_complete_collapse(record):
        return None
    distance, degeneracy = get_measurement(record, "pairwise_distance"), get_value(record, "degeneracy")
    evidence: dict[str, float | None] = {
        "score": record.score.value,
        "degeneracy": degeneracy,
        "near_duplicates": get_value(record, "near_duplicates"),
    }
    text = f"Complete collapse: {_describe_sameness(record)}"
    if distance is not None and distance.floor:
        evidence |= {"pairwise_distance": distance.value, "real": distance.floor}
        ratio = format_percent((distance.value or 0) / distance.floor)
        text += f"; the mean distance between samples is {ratio} of that between real samples"
    return Diagnosis("error", f"{text}.", evidence)


def _describe_sameness(record: Record) -> str:
    """That all outputs are one, or nearly all, and how they differ."""
    largest = get_measurement(record, "largest_repeat")
    if largest is None or (largest.low or 0.0) < MIN_REPEATED_FRACTION:
        return "all samples are nearly the same"
    if (largest.value or 0.0) < 1:
        return f"{format_percent(largest.value or 0)} of the samples are the same"
    text = "every latent gives the same output" if record.subject.get("latent") else "all samples are the same"
    return text if largest.reason == EQUAL_OUTPUTS else f"{text} apart from {largest.reason}"


@rule("GD102")
def find_aspect_collapse(record: Record, policy: Policy) -> Diagnosis | None:
    """Samples differ, but share an aspect in which the real data vary: color, texture, layout or semantics."""
    losses = {name: get_estimate(record.aspects, name) for name in record.aspects}
    collapsed = {name: loss for name, loss in losses.items() if loss[1] >= policy.limit}
    if not is_partial_collapse(record) or not collapsed:
        return None
    ranked = sorted(collapsed.items(), key=lambda item: -item[1][0])
    parts = ", ".join(f"{name} {format_percent(loss[0])}" for name, loss in ranked)
    text = f"Partial collapse: variety in {format_list(sorted(collapsed))} is lost. By aspect: {parts}."
    return Diagnosis("error", text, {name: loss[0] for name, loss in losses.items()})


@rule("GD103", kind="mode_dropping")
def find_mode_dropping(record: Record, policy: Policy) -> Diagnosis | None:
    """Regions of the data that the generator never produces.

    Where several stable clusters are all covered, the missing regions lie inside clusters: that is GD104.
    """
    share, low, high = get_estimate(record.profile, "missing")
    if not is_partial_collapse(record) or low < MIN_FACTOR or covers_all_clusters(record):
        return None
    missed = record.modes.get("missed") or []
    interval = format_interval(low, high)
    text = f"Mode dropping: {format_percent(share)} {interval} of the real data has no counterpart among the samples"
    if missed:
        text += f"; {len(missed)} of {record.modes.get('found')} clusters are missing or underrepresented"
    elif record.modes.get("covered") is not None:
        text += "; no cluster is missing as a whole"
    text += describe_missing_groups(record)
    evidence: dict[str, float] = {"missing": share}
    if record.modes.get("covered") is not None:  # None: too few samples lie near real ones to count modes
        evidence["modes_missed"] = len(missed)
    return Diagnosis("error", f"{text}.", evidence)


@rule("GD115")
def find_missing_classes(record: Record, policy: Policy) -> Diagnosis | None:
    """Classes of the real data that are never made, where the verdict is no collapse; GD103 names them otherwise."""
    groups = record.modes.get("groups") or {}
    missing = [row for row in groups.get("rows") or () if row.get("state") == "missing"]
    if is_partial_collapse(record) or groups.get("kind") != "classes" or not missing:
        return None
    share = sum(float(row["real"]["value"]) for row in missing)
    names = describe_missing_groups(record).removeprefix("; missing: ")
    text = f"Missing {names}. Together they are {format_percent(share)} of the real data."
    return Diagnosis("warning", text, {"classes_missing": len(missing), "share_real": share})


def describe_missing_groups(record: Record) -> str:
    """Names of the classes that are missing or too rare, or the number of such regions; empty where there are none."""
    groups = record.modes.get("groups") or {}
    rows = groups.get("rows") or ()
    parts = []
    for state, words in (("missing", "missing"), ("rare", "too rare")):
        names = [str(row["name"]) for row in rows if row.get("state") == state]
        if not names:
            continue
        if groups.get("kind") == "classes":
            shown = names if len(names) <= MAX_NAMES else [*names[:MAX_NAMES], f"{len(names) - MAX_NAMES} more"]
            parts.append(f"{words}: {'class' if len(names) == 1 else 'classes'} {format_list(shown)}")
        else:
            of_all = "" if parts else f" of {len(rows)} regions (k-means)"
            parts.append(f"{len(names)}{of_all} {'is' if len(names) == 1 else 'are'} {words}")
    return "".join(f"; {part}" for part in parts)


@rule("GD104", kind="thin_modes")
def find_intra_mode_collapse(record: Record, policy: Policy) -> Diagnosis | None:
    """Modes that are narrower than the real ones, or of which parts are never produced."""
    if not is_partial_collapse(record):
        return None
    evidence, texts = {}, []
    width, width_low, width_high = get_estimate(record.profile, "narrowed")
    missing, missing_low, missing_high = get_estimate(record.profile, "missing")
    if width_low >= MIN_FACTOR:
        evidence["narrowed"] = width
        interval = format_interval(width_low, width_high)
        texts.append(f"the generated modes have lost {format_percent(width)} {interval} of the width of the real ones")
    if missing_low >= MIN_FACTOR and covers_all_clusters(record):
        evidence["missing"] = missing
        interval = format_interval(missing_low, missing_high)
        texts.append(
            f"all {record.modes['found']} clusters are covered, but {format_percent(missing)} {interval} of the real "
            "data inside them has no counterpart among the samples"
        )
    return Diagnosis("error", f"Intra-mode collapse: {'; '.join(texts)}.", evidence) if texts else None


def _diagnose_factor(record: Record, factor: str, template: str) -> Diagnosis | None:
    """A finding on one factor of the profile; the template is filled with its share and interval."""
    share, low, high = get_estimate(record.profile, factor)
    if not is_partial_collapse(record) or low < MIN_FACTOR:
        return None
    text = template.format(share=format_percent(share), interval=format_interval(low, high))
    return Diagnosis("error", text, {factor: share})


@rule("GD105", kind="recycled")
def find_repeated_outputs(record: Record, policy: Policy) -> Diagnosis | None:
    """Different latents give the same outputs."""
    template = (
        "Repeated outputs: {share} {interval} of the diversity is lost because different latents give the same outputs."
    )
    return _diagnose_factor(record, "duplicated", template)


@rule("GD106", kind="skewed")
def find_mode_imbalance(record: Record, policy: Policy) -> Diagnosis | None:
    """Modes in other proportions than in the real data."""
    template = "Mode imbalance: {share} {interval} of the samples would have to move to other modes to match the data."
    return _diagnose_factor(record, "skewed", template)


@rule("GD108")
def find_degeneracy(record: Record, policy: Policy) -> Diagnosis | None:
    """Without real data: outputs repeat."""
    score = record.score
    if score.basis != "degeneracy" or (score.low or 0.0) < MIN_DEGENERACY or find_complete_collapse(record, policy):
        return None
    text = f"Repeated outputs: at least {format_percent(score.value or 0)} of the outputs repeat another one"
    distinct, largest = get_measurement(record, "distinct_outputs"), get_measurement(record, "largest_repeat")
    evidence: dict[str, float | None] = {"score": score.value}
    if distinct is not None and largest is not None and distinct.value is not None:
        evidence |= {"distinct_outputs": distinct.value, "largest_repeat": largest.value}
        text = f"Repeated outputs: {distinct.value:,.0f} different outputs among {distinct.n:,}"
        if (largest.value or 0.0) >= MIN_LARGEST_SHARE:
            text += f"; {format_percent(largest.value or 0)} of the outputs are one"
        if distinct.reason != EQUAL_OUTPUTS:
            text += f", apart from {distinct.reason}"
    return Diagnosis("error" if is_collapsed(record) else "warning", f"{text}.", evidence)


@rule("GD107", kind="conditional")
def find_class_collapse(record: Record, policy: Policy) -> Diagnosis | None:
    """Classes whose outputs hardly vary although those of the mixture do."""
    collapsed = [row for row in record.classes if (row.get("low") or 0.0) >= policy.limit]
    if not collapsed:
        return None
    names = ", ".join(str(row["label"]) for row in collapsed[:5])
    count = f"{len(collapsed)} of {len(record.classes)} classes"
    text = f"Conditional collapse: {count} have lost diversity; worst first: {names}."
    evidence = {"classes": len(collapsed), "worst": collapsed[0].get("score")}
    return Diagnosis("error" if is_collapsed(record) else "warning", text, evidence)


@rule("GD109", kind="conditional")
def find_ignored_input(record: Record, policy: Policy) -> Diagnosis | None:
    """The class has no effect on the output, or z has none once the class is fixed."""
    label, latent = get_measurement(record, "class_response"), get_measurement(record, "z_ignored")
    if label is not None and label.high is not None and label.high < MAX_IGNORED_RESPONSE:
        ratio = format_percent(label.value or 0)
        text = f"Class ignored: changing the class changes the output only {ratio} as much as changing z does."
        return Diagnosis("warning", text, {"class_response": label.value})
    if latent is not None and latent.high is not None and latent.high < MAX_IGNORED_RESPONSE:
        ratio = format_percent(latent.value or 0)
        distance = f"within a class, samples are only {ratio} as far apart as across classes"
        text = f"Latent ignored: {distance} ({latent.reason})."
        return Diagnosis("error", text, {"z_ignored": latent.value})
    response = get_measurement(record, "latent_response")
    if response is not None and response.high is not None and response.high < MAX_IGNORED_RESPONSE:
        ratio = format_percent(response.value or 0)
        text = f"Latent ignored: another z moves an output by only {ratio} of the distance between outputs; "
        return Diagnosis(
            "error", f"{text}they vary by noise of the network's own.", {"latent_response": response.value}
        )
    return None


COLLAPSE_RULES: tuple[Rule, ...] = (
    find_complete_collapse,
    find_aspect_collapse,
    find_mode_dropping,
    find_missing_classes,
    find_intra_mode_collapse,
    find_repeated_outputs,
    find_mode_imbalance,
    find_degeneracy,
    find_class_collapse,
    find_ignored_input,
)
