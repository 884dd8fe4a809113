"""What the columns beside the losses say: each is judged on its own and never merged into the verdict.

Where a column speaks of harm, its row has an `alarm`, which joins the summary of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gandiag.training_logs.loss_type import get_discriminator_probabilities
from gandiag.training_logs.number_text import format_step, format_value
from gandiag.training_logs.series import SCORE_ROLES, Array, Curve, Log
from gandiag.training_logs.side_columns import find_rate_drops

MIN_ROWS = 8  # below which a column is shown but not judged
ADA_TARGET = 0.6  # of the sign of D on real samples (Karras et al. 2020, arXiv:2006.06676)
OVERFIT_SIGN = 0.9
ADA_LIMIT = 0.8  # beyond, augmentations leak into the samples
GROWTH = 10.0  # of a penalty or a gradient
FID_LOSS = 1.2  # times the best
RECENT = 0.8  # of the log, before which the best FID is old
SURE, CHANCE = 0.95, (0.45, 0.55)


@dataclass(frozen=True, slots=True)
class SideColumn:
    """A column: finite steps and values (n,), and its medians at either end."""

    name: str
    step: Array
    value: Array
    first: float
    last: float

    @property
    def is_long(self) -> bool:
        """Whether it has enough rows to be judged."""
        return len(self.value) >= MIN_ROWS


def describe_side_columns(log: Log) -> list[dict[str, Any]]:
    """A row for each column beside the losses: role, name, first and last level, what it `says`, and an `alarm`.

    For FID the best value and its step too.
    """
    rows = [_describe(role, curve) for role, curve in log.side_curves.values()]
    drops = find_rate_drops(log.side_curves)
    if get_discriminator_probabilities(log.curves) is not None:
        rows += [_describe(role, log.curves[role]) for role in SCORE_ROLES]
    for row in rows:
        if row and row["role"] == "learning_rate" and drops:
            row["says"] = f"drops at {', '.join(map(format_step, drops[:4]))}" + " …" * (len(drops) > 4)
    return [row for row in rows if row]


def _describe(role: str, curve: Curve) -> dict[str, Any]:
    finite = np.isfinite(curve.value)
    step, value = curve.step[finite], curve.value[finite]
    if not len(value):
        return {}
    count = max(len(value) // 10, 1)
    first, last = float(np.median(value[:count])), float(np.median(value[-count:]))
    row: dict[str, Any] = {"role": role, "name": curve.name, "first": first, "last": last, "says": "", "alarm": ""}
    if role == "fid":
        best = int(value.argmin())
        row |= {"best": float(value[best]), "best_step": float(step[best]), "last": float(value[-1])}
    judge = JUDGES.get(role)
    if judge is not None:
        row["says"], row["alarm"] = judge(SideColumn(curve.name, step, value, first, last))
    return row


def _judge_sign_real(seen: SideColumn) -> Sequence[str]:
    says = f"D takes {50 * (1 + seen.last):.0f} % of real samples for real"
    if seen.is_long and seen.last > OVERFIT_SIGN:
        return says, (
            f"{seen.name} is {seen.last:.2f} at the end (ADA aims at {ADA_TARGET}): D knows its training samples by "
            "heart; augment more, or use more data"
        )
    return says, ""


def _judge_sign_fake(seen: SideColumn) -> Sequence[str]:
    return f"D takes {50 * (1 - seen.last):.0f} % of generated samples for generated", ""


def _judge_augmentation(seen: SideColumn) -> Sequence[str]:
    if seen.is_long and seen.last > ADA_LIMIT:
        return "near its limit", (
            f"{seen.name} is {seen.last:.2f} at the end: D overfits even so, and augmentations this strong leak "
            "into the samples; use more data or a smaller D"
        )
    return ("D does not overfit" if seen.last < 0.02 else "in the usual range") if seen.is_long else "", ""


def _judge_growth(seen: SideColumn) -> Sequence[str]:
    """A penalty or a gradient that grows many times over."""
    start = float(np.median(np.abs(seen.value[: max(len(seen.value) // 4, 1)])))
    last = abs(seen.last)
    if not seen.is_long or start <= 0 or last < GROWTH * start:
        return _describe_ratio(last / start) if seen.is_long and start > 0 else "", ""
    times = f"{last / start:.0f}" if last < 1000 * start else "over 1,000"
    return f"grows {times}-fold", f"{seen.name} grows {times}-fold to {format_value(last)}: D becomes ever steeper"


def _describe_ratio(ratio: float) -> str:
    return "rises" if ratio > 2 else "falls" if ratio < 0.5 else "steady"


def _judge_gradient(seen: SideColumn) -> Sequence[str]:
    start = float(np.median(np.abs(seen.value[: max(len(seen.value) // 4, 1)])))
    if seen.is_long and start > 0 and abs(seen.last) < 1e-3 * start:
        return "vanishes", f"{seen.name} falls to {format_value(seen.last)}: its gradients vanish"
    says, alarm = _judge_growth(seen)
    return says, alarm.replace("D becomes ever steeper", "clip gradients, or lower the learning rate")


def _judge_accuracy(seen: SideColumn) -> Sequence[str]:
    share = seen.last / (100.0 if float(seen.value.max()) > 1.5 else 1.0)
    if share >= SURE:
        return "D is nearly always right", ""
    return ("D guesses" if CHANCE[0] <= share <= CHANCE[1] else f"D is right on {100 * share:.0f} %"), ""


def _judge_rate(seen: SideColumn) -> Sequence[str]:
    if seen.value[-1] == 0 and float(seen.value.max()) > 0:
        return "0 at the end: nothing is trained any more", ""
    return ("constant" if float(np.ptp(seen.value)) <= 1e-9 * abs(seen.first) else "changes gradually"), ""


def _judge_fid(seen: SideColumn) -> Sequence[str]:
    best, last = int(seen.value.argmin()), float(seen.value[-1])
    span = float(seen.step[-1] - seen.step[0])
    is_old = len(seen.value) > 3 and float(seen.step[best] - seen.step[0]) < RECENT * span
    if is_old and last > FID_LOSS * float(seen.value[best]):
        return "worse than it was", (
            f"{seen.name} was best at {format_step(float(seen.step[best]))} ({format_value(float(seen.value[best]))}) "
            f"and ends at {format_value(last)}: take that checkpoint"
        )
    return "", ""


def _judge_score_real(seen: SideColumn) -> Sequence[str]:
    return "D is nearly sure of them" if seen.last > SURE else "", ""


def _judge_score_fake(seen: SideColumn) -> Sequence[str]:
    return "D is nearly sure of them" if seen.last < 1 - SURE else "", ""


JUDGES: dict[str, Callable[[SideColumn], Sequence[str]]] = {
    "signs_real": _judge_sign_real,
    "signs_fake": _judge_sign_fake,
    "ada": _judge_augmentation,
    "r1": _judge_growth,
    "gradient_penalty": _judge_growth,
    "gradient_norm": _judge_gradient,
    "accuracy": _judge_accuracy,
    "learning_rate": _judge_rate,
    "fid": _judge_fid,
    "score_real": _judge_score_real,
    "score_fake": _judge_score_fake,
}
