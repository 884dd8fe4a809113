"""What the game between G and D says: findings GD707 and GD708, from the probe of the discriminator. Dynamics only: never part of the verdict."""

from __future__ import annotations

from gandiag.record import Finding, Record
from gandiag.verdict.policy import Policy
from gandiag.verdict.record_queries import format_interval, format_percent, get_measurement

MAX_EFFECTIVE_OUTPUTS = 2.0  # effective outputs below which the maximin player counts as one point
MIN_GAIN_NATS = 0.02  # nats that it must take from the frozen D: below, D is flat and there is nowhere to be driven
MIN_GAP_NATS = 0.2  # nats; a gap from which on the players are far from an equilibrium


def find_maximin_collapse(record: Record, policy: Policy) -> Finding | None:
    """GD707: against a frozen D, a few steps put all outputs on one point, and that pays."""
    outputs, spread, gain = (
        get_measurement(record, key) for key in ("maximin_outputs", "maximin_spread", "maximin_gain")
    )
    if outputs is None or spread is None or gain is None or gain.unit != "nats":
        return None
    if not (outputs.high or MAX_EFFECTIVE_OUTPUTS) < MAX_EFFECTIVE_OUTPUTS or not (gain.low or 0.0) >= MIN_GAIN_NATS:
        return None
    before = ((record.game.get("before") or {}).get("outputs") or {}).get("value")
    start = "" if before is None else f", from {before:.1f}"
    text = (
        f"Maximin: with the discriminator frozen, {record.game.get('steps')} steps of G put {outputs.n} held-out outputs on {outputs.value:.1f} effective "
        f"ones{start} (mean distance {format_percent(spread.value or 0.0)} of before), and G gains {gain.value:.3f} nats {format_interval(gain.low, gain.high)} by it: "
        "this D sends every latent to one place, and only its answers keep G from staying there."
    )
    return Finding(
        "GD707",
        "note",
        text,
        {"maximin_outputs": outputs.value, "maximin_spread": spread.value, "maximin_gain": gain.value},
    )


def find_wide_duality_gap(record: Record, policy: Policy) -> Finding | None:
    """GD708: the duality gap is wide: the losses may look settled, the game is not."""
    gap, lower, upper, value = (
        get_measurement(record, key) for key in ("duality_gap", "game_lower", "game_upper", "game_value")
    )
    if (
        gap is None
        or lower is None
        or upper is None
        or value is None
        or not (gap.low or 0.0) >= MIN_GAP_NATS + max(0.0, gap.floor or 0.0)
    ):
        return None
    text = (
        f"Far from an equilibrium: the value of the game lies between {lower.value:.2f} and {upper.value:.2f} nats, a duality gap of {gap.value:.2f} "
        f"{format_interval(gap.low, gap.high)}; at the present {value.value:.2f}, D could gain {(upper.value or 0) - (value.value or 0):.2f} against this G "
        f"and G {(value.value or 0) - (lower.value or 0):.2f} against this D."
    )
    evidence = {
        "duality_gap": gap.value,
        "game_value": value.value,
        "game_upper": upper.value,
        "game_lower": lower.value,
    }
    return Finding("GD708", "note", text, evidence)


GAME_RULES = (find_maximin_collapse, find_wide_duality_gap)
