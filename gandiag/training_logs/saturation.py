"""Events in the level of a loss: a player that has won, a loss that is NaN, infinite or exploding, and since when."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gandiag.training_logs.events import (
    MIN_EVENT_ROWS,
    LossEvent,
    find_final_stretch,
    find_lasting_start,
    running_median,
)
from gandiag.training_logs.loss_levels import format_confidence, infer_family
from gandiag.training_logs.loss_type import get_discriminator_probabilities, infer_loss_type
from gandiag.training_logs.series import Curve

SCORE_TOLERANCE = 0.05  # D's probabilities within this of 1 and 0: D is almost always right
NEAR_ZERO_LOSS = 0.02  # a cross-entropy at which the right answer has a probability of 98 %
FAILURE_FACTOR = 1e3  # times the usual size


def find_failure(curve: Curve) -> LossEvent | None:
    """A loss that becomes NaN or infinite, or exceeds a thousand times its usual size, and stays there to the end."""
    non_finite = ~np.isfinite(curve.value)
    start = find_final_stretch(non_finite)
    if start is not None:
        return LossEvent(float(curve.step[start]), "failed", f"{curve.name} is NaN or infinite to the end of the log")
    value = np.where(non_finite, 0.0, curve.value)
    first_half = np.abs(value[: max(len(value) // 2, 1)])
    median = np.median(first_half)
    usual = float(median) + float(first_half.std() if first_half.max() < FAILURE_FACTOR * (median + 1e-9) else 0.0)
    start = find_final_stretch(np.abs(value) > FAILURE_FACTOR * max(usual, 1e-3))
    if start is None or len(value) < MIN_EVENT_ROWS:
        return None
    evidence = f"{curve.name} explodes to {value[-1]:.3g} at the end, from a usual {usual:.3g}"
    return LossEvent(float(curve.step[start]), "failed", evidence)


def describe_non_finite_rows(curve: Curve) -> str | None:
    """A note on NaN and infinite rows; None without any."""
    non_finite = ~np.isfinite(curve.value)
    count = int(non_finite.sum())
    if not count:
        return None
    first = curve.step[non_finite.argmax()]
    return f"{count:,} of {len(non_finite):,} rows of {curve.name} are not finite, the first at step {first:,.0f}"


def find_discriminator_win(curves: Mapping[str, Curve]) -> LossEvent | None:
    """D separates real from generated samples without error, to the end of the log.

    Judged by its probabilities, else by its loss if that is bounded by 0.
    """
    pair = get_discriminator_probabilities(curves)
    if pair is not None and len(pair[0]) == len(pair[1]):
        real, fake = running_median(pair[0].value), running_median(pair[1].value)
        start = find_lasting_start((real > 1 - SCORE_TOLERANCE) & (fake < SCORE_TOLERANCE))
        if start is None:
            return None
        evidence = (
            f"D is almost always right, with D(x) at {np.median(real[start:]):.3f} "
            f"and D(G(z)) at {np.median(fake[start:]):.2g}"
        )
        return LossEvent(float(pair[0].step[start]), "discriminator_wins", evidence + _describe_generator_loss(curves))
    loss = curves.get("discriminator")
    if loss is None or infer_loss_type(curves) != "bounded":
        return None
    family = infer_family(curves)
    value = running_median(loss.value)
    start = find_lasting_start(value < family.win_level)
    if start is None:
        return None
    before = f", from {np.median(value[:start]):.2g} before" if start else ""
    level = float(np.median(value[start:]))
    evidence = f"{loss.name} stays near 0, at {level:.2g}{before}"
    if confidence := family.get_confidence(level):
        evidence += f": D is {format_confidence(confidence)} sure"
    return LossEvent(float(loss.step[start]), "discriminator_wins", evidence + _describe_generator_loss(curves))


def find_generator_win(curves: Mapping[str, Curve]) -> LossEvent | None:
    """D takes generated samples for real ones, to the end of the log.

    D(G(z)) is near 1; without probabilities, G's loss is near 0 while D's has not fallen.
    """
    pair = get_discriminator_probabilities(curves)
    if pair is not None:
        fake = running_median(pair[1].value)
        start = find_lasting_start(fake > 1 - SCORE_TOLERANCE)
        if start is None:
            return None
        evidence = f"D takes generated samples for real ones, with D(G(z)) at {np.median(fake[start:]):.3f}"
        return LossEvent(float(pair[1].step[start]), "generator_wins", evidence)
    loss, opposing = curves.get("generator"), curves.get("discriminator")
    if loss is None or opposing is None or infer_loss_type(curves) != "bounded" or float(np.nanmin(loss.value)) < 0:
        return None
    value, opposing_value = running_median(loss.value), running_median(opposing.value)
    start = find_lasting_start(value < NEAR_ZERO_LOSS)
    if start is None:
        return None
    later = opposing_value[opposing.step >= loss.step[start]]
    initial = opposing_value[: max(len(opposing_value) // 10, 1)]
    if len(later) == 0 or float(np.median(later)) < float(np.median(initial)):
        return None
    evidence = (
        f"{loss.name} stays near 0, at {np.median(value[start:]):.2g}, while {opposing.name} is {np.median(later):.2g}"
    )
    return LossEvent(float(loss.step[start]), "generator_wins", evidence)


def _describe_generator_loss(curves: Mapping[str, Curve]) -> str:
    """How G's loss ends after D has won, as the rest of a phrase; "" if it is unknown."""
    loss = curves.get("generator")
    if loss is None or len(loss) < MIN_EVENT_ROWS:
        return ""
    last = loss.value[-max(len(loss) // 10, 5) :]
    last = last[np.isfinite(last)]
    if len(last) == 0:
        return ""
    if float(np.median(np.abs(last))) < NEAR_ZERO_LOSS:
        return "; G's loss stays at 0 too: its gradient has vanished"
    return f"; {loss.name} is {np.median(last):.3g} at the end"
