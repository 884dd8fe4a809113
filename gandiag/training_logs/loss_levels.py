"""What the level of D's loss means: which loss it is, where chance lies, how sure D is, and who has won.

    loss                         chance of D   chance of G
    cross-entropy, summed        2 ln 2        ln 2          D is right with probability exp(-D / 2)
    cross-entropy, averaged      ln 2          ln 2          exp(-D)
    least squares, averaged      0.25          0.25
    least squares, summed        0.5           0.25
    hinge                        2             0
    Wasserstein                  0             none

The loss is inferred from the column names and from the values: it is written nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gandiag.training_logs.events import MIN_EVENT_ROWS, LossEvent, find_lasting_start, running_median
from gandiag.training_logs.loss_type import infer_loss_type
from gandiag.training_logs.number_text import format_value
from gandiag.training_logs.series import Array, Curve

LN2 = math.log(2)
CHANCE_TOLERANCE = 0.015  # of the chance level, within which the smoothed loss of D must stay …
CHANCE_NOISE = 0.02  # … and the noise of its rows below this share
ZERO_TOLERANCE = 0.02  # of the largest value of a Wasserstein loss: at 0
DETERMINISTIC = 1e-6  # noise below this share of the level: no mini-batches, so a game that has converged
FOOLED_LOSS = 0.3  # loss of G below which D takes most of its samples for real
MAX_SINGLE_LOSS = 1.7  # a D whose usual loss is larger adds up several discriminators or other terms
FOOLED_FACTOR = 1.2  # times chance, that D's loss must exceed then


@dataclass(frozen=True, slots=True)
class LossFamily:
    """`name`; `chance`: D's loss when it guesses, None if unknown; `is_certain`: if names or values leave no doubt.

    `win_level`: D's loss below which D has won. `rate`: D is right with probability exp(-rate D), 0 if unknown.
    """

    name: str
    chance: float | None
    win_level: float
    rate: float = 0.0
    is_certain: bool = True

    def get_confidence(self, level: float) -> float | None:
        """The probability that D gives to the right answer at this loss; None if the family has none."""
        return math.exp(-self.rate * max(level, 0.0)) if self.rate else None


SUMMED = LossFamily("cross-entropy, summed", 2 * LN2, 0.07, 0.5)
AVERAGED = LossFamily("cross-entropy, averaged", LN2, 0.035, 1.0)
LEAST_SQUARES = LossFamily("least squares, averaged", 0.25, 0.02)
LEAST_SQUARES_SUMMED = LossFamily("least squares, summed", 0.5, 0.02)
HINGE = LossFamily("hinge", 2.0, 0.05)
WASSERSTEIN = LossFamily("Wasserstein", 0.0, -math.inf)
UNKNOWN = LossFamily("unknown", None, 0.02, 0.0, False)
SIGNED = LossFamily("hinge or Wasserstein", None, -math.inf, 0.0, False)  # G's loss is negative: D's level says little


def infer_family(curves: Mapping[str, Curve]) -> LossFamily:
    """The family of a pair of losses, from its names, else from its values."""
    loss, opposing = curves.get("discriminator"), curves.get("generator")
    if loss is None:
        return UNKNOWN
    names = f"{loss.name} {opposing.name if opposing else ''}".lower()
    level = _finite(loss.value)
    if infer_loss_type(curves) == "unbounded" or len(level) == 0:
        return WASSERSTEIN
    if "hinge" in names:
        return HINGE
    smooth = _finite(running_median(loss.value))
    if len(smooth) == 0:  # between infinite values nothing is left of a running median
        return UNKNOWN
    high = float(np.quantile(smooth, 0.9))
    if opposing is None:
        return UNKNOWN
    if "mse" in names or "lsgan" in names:
        return LEAST_SQUARES if high < 0.4 else LEAST_SQUARES_SUMMED
    return _infer_from_values(smooth, high, _finite(running_median(opposing.value)), " + " in loss.name)


def _infer_from_values(smooth: Array, high: float, other: Array, is_sum: bool) -> LossFamily:
    if len(other) == 0:
        return UNKNOWN
    if float(other.min()) < 0:
        is_hinge = 1.2 < high < 3.5 or float(np.median(other[len(other) // 2 :])) > 0.9
        return HINGE if is_hinge else SIGNED
    if high <= 0.55 and float(np.quantile(other, 0.98)) <= 1.3:
        return LEAST_SQUARES if high < 0.4 and not is_sum else LEAST_SQUARES_SUMMED
    if float(np.median(smooth)) > MAX_SINGLE_LOSS and float(np.median(other)) > FOOLED_LOSS:
        return UNKNOWN
    if high > 0.8 or is_sum:
        return SUMMED
    if abs(float(np.median(smooth)) - LN2) < 0.1 or (0.55 < high < 0.8 and float(np.quantile(other, 0.1)) < 1.0):
        return AVERAGED
    return LossFamily(SUMMED.name, SUMMED.chance, SUMMED.win_level, SUMMED.rate, is_certain=False)


def find_chance_level(curves: Mapping[str, Curve]) -> LossEvent | None:
    """D's loss stays at chance to the end of the log, with next to no noise: D separates nothing."""
    loss = curves.get("discriminator")
    if loss is None or len(loss) < MIN_EVENT_ROWS:
        return None
    family = infer_family(curves)
    if family.chance is None:
        return None
    scale = family.chance or float(np.abs(_finite(loss.value)).max(initial=0.0))
    tolerance = (CHANCE_TOLERANCE if family.chance else ZERO_TOLERANCE) * scale
    if family is WASSERSTEIN and scale > 1.0:
        tolerance = ZERO_TOLERANCE
    start = find_lasting_start(np.abs(running_median(loss.value) - family.chance) <= tolerance)
    if start is None:
        return None
    stretch = _finite(loss.value[start:])
    tail = stretch[-max(len(stretch) // 10, 5) :]
    noise = 1.4826 * float(np.median(np.abs(stretch - np.median(stretch))))
    is_deterministic = family.chance > 0 and float(np.ptp(tail)) <= DETERMINISTIC * family.chance
    if is_deterministic or noise > CHANCE_NOISE * scale or (family is WASSERSTEIN and not _is_flat(curves, start)):
        return None
    what = "its estimate of the distance is 0" if family is WASSERSTEIN else f"chance is {family.chance:.3g}"
    level = format_value(float(np.median(stretch)))
    evidence = f"{loss.name} stays at {level} ({what}): D separates nothing, or G is perfect"
    return LossEvent(float(loss.step[start]), "discriminator_at_chance", evidence)


def _is_flat(curves: Mapping[str, Curve], start: int) -> bool:
    """Whether G's loss no longer moves once a critic is at 0: a working critic's estimate may be small, but G moves."""
    opposing = curves.get("generator")
    if opposing is None:
        return True
    value = _finite(opposing.value)
    later = value[min(start, len(value) // 2) :]
    return len(later) > 0 and float(later.std()) <= max(0.05 * abs(float(np.median(later))), 1e-3)


def find_fooled_discriminator(curves: Mapping[str, Curve]) -> LossEvent | None:
    """G's loss is small while D's exceeds chance: D takes generated samples for real ones."""
    loss, opposing = curves.get("generator"), curves.get("discriminator")
    if loss is None or opposing is None or len(loss) != len(opposing):
        return None
    family = infer_family(curves)
    if family.rate == 0 or family.chance is None or not family.is_certain:
        return None
    low, high = running_median(loss.value), running_median(opposing.value)
    start = find_lasting_start((low < FOOLED_LOSS) & (low >= 0) & (high > FOOLED_FACTOR * family.chance))
    if start is None:
        return None
    evidence = (
        f"{loss.name} is {np.median(low[start:]):.2g} while {opposing.name} is {np.median(high[start:]):.3g} "
        f"(chance is {family.chance:.3g}): D takes generated samples for real ones"
    )
    return LossEvent(float(loss.step[start]), "generator_wins", evidence)


def format_confidence(confidence: float) -> str:
    """ "about 92 %", "over 99 %"."""
    return "over 99 %" if confidence > 0.99 else f"about {100 * confidence:.0f} %"


def describe_chance(family: LossFamily) -> str:
    """ "chance is 1.39"; "" where the family has no such level."""
    if family.chance is None or family is WASSERSTEIN:
        return ""
    return f"chance is {family.chance:.3g}" + ("" if family.is_certain else f", {LN2:.2g} if it is averaged")


def describe_skill(family: LossFamily, level: float) -> str:
    """What this level of D's loss says about D, as a phrase; "" where it says nothing."""
    if family is WASSERSTEIN:
        return "Wasserstein losses: a level says nothing by itself, only near 0 the critic separates nothing"
    if family.chance is None:
        return ""
    if level > 0.95 * family.chance:
        return "D is no better than chance"
    confidence = family.get_confidence(level)
    if confidence is not None:
        return f"D is {format_confidence(confidence)} sure"
    if family.name.startswith("least squares"):
        miss = 0.5 * math.sqrt(max(level, 0.0) / family.chance)
        return f"D misses its targets by about {miss:.2g}, where chance misses by 0.5"
    return ""


def _finite(value: Array) -> Array:
    return np.asarray(value[np.isfinite(value)])
