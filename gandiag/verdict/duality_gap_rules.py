"""GD707 and GD708: the minimax game between G and D, from the discriminator probe. Never part of the verdict."""

from __future__ import annotations

from gandiag.record import Record
from gandiag.verdict.policy import Policy
from gandiag.verdict.record_queries import format_interval, format_percent, get_measurement
from gandiag.verdict.rule_base import Diagnosis, rule

MAX_EFFECTIVE_OUTPUTS = 2.0  # effective outputs below which the maximin player counts as collapsed to a point
MIN_GAIN_NATS = 0.02  # nats that G must gain against the frozen D; below, D is flat and drives G nowhere
MIN_GAP_NATS = 0.2  # duality gap above its floor, in nats, from which the players are far from equilibrium


@rule("GD707")
def find_maximin_collapse(record: Record, policy: Policy) -> Diagnosis | None:
    """Against a frozen D, a few steps of G put all outputs on one point and pay off."""
    outputs = get_measurement(record, "maximin_outputs")
    spread = get_measurement(record, "maximin_spread")
    gain = get_measurement(record, "maximin_gain")
    if outputs is None or spread is None or gain is None or gain.unit != "nats":
        return None
    if not (outputs.high or MAX_EFFECTIVE_OUTPUTS) < MAX_EFFECTIVE_OUTPUTS or not (gain.low or 0.0) >= MIN_GAIN_NATS:
        return None
    before = ((record.game.get("before") or {}).get("outputs") or {}).get("value")
    start = "" if before is None else f" from {before:.1f}"
    text = (
        f"Maximin collapse: {record.game.get('steps')} steps of G against the frozen discriminator shrink {outputs.n} "
        f"held-out outputs{start} to {outputs.value:.1f} effective ones, at {format_percent(spread.value or 0.0)} of "
        f"their mean distance, and G gains {gain.value:.3f} nats {format_interval(gain.low, gain.high)}. "
        "This D rewards a single output; only its further updates keep G from collapsing there."
    )
    evidence = {"maximin_outputs": outputs.value, "maximin_spread": spread.value, "maximin_gain": gain.value}
    return Diagnosis("note", text, evidence)


@rule("GD708")
def find_wide_duality_gap(record: Record, policy: Policy) -> Diagnosis | None:
    """The duality gap is wide: the losses may look settled, but the game is not."""
    gap, value = get_measurement(record, "duality_gap"), get_measurement(record, "game_value")
    lower, upper = get_measurement(record, "game_lower"), get_measurement(record, "game_upper")
    if gap is None or lower is None or upper is None or value is None:
        return None
    if not (gap.low or 0.0) >= MIN_GAP_NATS + max(0.0, gap.floor or 0.0):
        return None
    discriminator_gain = (upper.value or 0) - (value.value or 0)
    generator_gain = (value.value or 0) - (lower.value or 0)
    text = (
        f"Far from equilibrium: the duality gap is {gap.value:.2f} nats {format_interval(gap.low, gap.high)}. "
        f"The game stands at {value.value:.2f}; D could gain {discriminator_gain:.2f} nats against this G (to "
        f"{upper.value:.2f}), and G {generator_gain:.2f} nats against this D (to {lower.value:.2f})."
    )
    evidence = {
        "duality_gap": gap.value,
        "game_value": value.value,
        "game_upper": upper.value,
        "game_lower": lower.value,
    }
    return Diagnosis("note", text, evidence)
