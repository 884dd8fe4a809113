"""The oscillation of a run: both losses tested, the stronger line described, the players compared at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gandiag.logs.cycle import Cycle, cycle, together
from gandiag.logs.series import LOSSES, Curve, Log
from gandiag.logs.spectrum import FEWEST, Spectrum, spectrum
from gandiag.logs.trim import Trimmed, trimmed

STILL = 1e-3  # of the range of the whole log: what moves less after the warm-up has settled
LEVEL = 0.05
NOTICEABLE = 0.05  # share of the variance that a line must carry to be called an oscillation of the training


@dataclass(frozen=True, slots=True, eq=False)
class Oscillation:
    """`p_value` is corrected for the number of tests. `sharp`: a line, else a band of periods. `per_epoch`: the line is the order of the data, not the game.

    `lasting`: it is there to the end of the log.
    """

    role: str
    curve: Curve
    part: Trimmed
    spectrum: Spectrum
    cycle: Cycle
    p_value: float
    sharp: bool
    pair: Mapping[str, float | None]
    per_epoch: bool
    lasting: bool

    @property
    def real(self) -> bool:
        return self.p_value <= LEVEL and self.cycle.share >= NOTICEABLE and not self.per_epoch


def still(curve: Curve, part: Trimmed) -> bool:
    """Whether a loss has come to rest after its warm-up."""
    finite = curve.value[np.isfinite(curve.value)]
    return len(part.value) > 0 and float(part.value.std()) <= STILL * float(np.ptp(finite))


def zero_sum(log: Log) -> bool:
    """Whether one loss is the other, up to sign: a game logged by its value."""
    one, other = (log.curves[role] for role in LOSSES)
    if len(one) != len(other) or not (np.isfinite(one.value).all() and np.isfinite(other.value).all()) or np.ptp(one.value) * np.ptp(other.value) == 0:
        return False
    return float(abs(np.corrcoef(one.value, other.value)[0, 1])) > 0.9999


def parts_of(log: Log) -> dict[str, Trimmed]:
    """Each loss without its warm-up; where there are no rows of use, it is left out."""
    parts = {role: trimmed(log.curves[role]) for role in LOSSES if role in log.curves}
    return {role: part for role, part in parts.items() if len(part.step)}


def oscillation(log: Log, parts: Mapping[str, Trimmed], *, seed: int = 0) -> Oscillation | None:
    """The strongest line of the losses that can be tested; None where none can: too few rows, or at rest."""
    tested = {role: part for role, part in parts.items() if len(part.step) >= FEWEST and not still(log.curves[role], part)}
    if not tested:
        return None
    if len(tested) == 2 and zero_sum(log):
        tested.pop("discriminator")  # the same numbers twice are one test
    found = {role: spectrum(part.step, part.value, seed=seed) for role, part in tested.items()}
    role = min(found, key=lambda key: (found[key].p_either, -found[key].ratio))
    part, line = tested[role], found[role]
    sharp = line.p_value <= line.p_broad
    turn = cycle(part.step, part.value, line.peak if sharp else line.hump)
    p_value = min(1.0, line.p_either * len(tested))
    pair: Mapping[str, float | None] = {"coherence": None, "phase": None, "chance": None}
    if len(parts) == 2 and not zero_sum(log):
        one, other = ((parts[name].step, parts[name].value) for name in LOSSES)
        pair = together(one, other, 1 / turn.period)
    lasting = turn.lasting or (p_value <= LEVEL and _later(part, seed))
    return Oscillation(role, log.curves[role], part, line, turn, p_value, sharp, pair, _per_epoch(turn.period, part, log.epoch), lasting)


def _later(part: Trimmed, seed: int) -> bool:
    """Whether the second half of the log oscillates for itself: a cycle whose period wanders is no longer at the line of the whole, and yet there.

    Asked only where the whole log does, so that noise is not called oscillating more often for it.
    """
    half = len(part.step) // 2
    return half >= FEWEST and spectrum(part.step[half:], part.value[half:], seed=seed).p_either <= LEVEL


def _per_epoch(period: float, part: Trimmed, epoch: float | None) -> bool:
    """Whether the period is an epoch, or a simple part of it, to within the resolution of the log."""
    if not epoch or epoch <= 2 * float(np.median(np.diff(part.step))):
        return False
    span = float(part.step[-1] - part.step[0])
    return any(abs(1 / period - turns / epoch) < 0.75 / span for turns in (1, 2, 3)) and span > 4 * epoch


def document(found: Oscillation | None) -> dict[str, Any]:
    """The `oscillation` part of the losses document; numbers are null where nothing could be tested."""
    keys = ("p_value", "period", "amplitude", "coherence", "phase", "start")
    if found is None:
        return dict.fromkeys(keys)
    turn, line = found.cycle, found.spectrum
    return {
        "p_value": found.p_value, "period": turn.period, "amplitude": turn.amplitude, "coherence": found.pair["coherence"], "phase": found.pair["phase"],
        "start": turn.start, "curve": found.curve.name, "share": turn.share, "growth": turn.growth, "coherence_by_chance": found.pair["chance"],
        "band": list(line.band), "background": {"phi": line.phi, "share": line.share}, "method": line.method, "per_epoch": found.per_epoch,
        "sharp": found.sharp, "lasting": found.lasting,
    }  # fmt: skip
