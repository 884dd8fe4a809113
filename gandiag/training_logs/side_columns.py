"""Columns beside the losses that say how the game stands: D's accuracy, StyleGAN's signs, ADA, penalties, rates, FID.

They are shown beside the verdict, with what they say (side_findings.py). Only two take part in it: an accuracy of D
near 1 is a win, and a drop of the learning rate explains a step of the losses and splits the tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

from gandiag.training_logs.column_names import split_words
from gandiag.training_logs.events import LossEvent, find_lasting_start, running_median
from gandiag.training_logs.series import Curve

# Role -> words of its column; the first role that fits is taken.
SIDE_WORDS: dict[str, tuple[frozenset[str], ...]] = {
    "signs_real": (frozenset({"signs", "real"}),),
    "signs_fake": (frozenset({"signs", "fake"}),),
    "fid": (frozenset({"fid"}), frozenset({"fid", "k"})),
    "accuracy": (frozenset({"acc"}), frozenset({"accuracy"})),
    "gradient_norm": (frozenset({"grad", "norm"}), frozenset({"gradnorm"})),
    "gradient_penalty": (frozenset({"gp"}), frozenset({"gradient", "penalty"}), frozenset({"grad", "penalty"})),
    "r1": (frozenset({"r1"}), frozenset({"r", "1", "penalty"})),
    "learning_rate": (frozenset({"lr"}), frozenset({"learning", "rate"})),
    "ada": (frozenset({"augment"}), frozenset({"ada", "p"}), frozenset({"ada"})),
}
R1_PATTERN = re.compile(r"(?:^|[^a-z0-9])r1(?:$|[^a-z0-9])", re.IGNORECASE)
NOT_SIDE_WORDS = {"val", "valid", "validation", "test", "eval", "time", "sec", "num", "std"}
RATE_DROP = 0.7  # a learning rate below this share of the one before has dropped
MAX_RATE_DROPS = 20
SURE_ACCURACY = 0.98
MAX_SIDE_CURVES = 12


def infer_side_role(name: str) -> str | None:
    """The role of a column beside the losses, else None."""
    words = set(split_words(name))
    if words & NOT_SIDE_WORDS:
        return None
    if R1_PATTERN.search(name):
        return "r1"
    return next((role for role, options in SIDE_WORDS.items() if any(option <= words for option in options)), None)


def choose_side_columns(names: Iterable[str], used: Iterable[str]) -> dict[str, str]:
    """Column -> role, for at most MAX_SIDE_CURVES columns that are no losses."""
    taken = set(used)
    found = {name: role for name in names if name not in taken and (role := infer_side_role(name)) is not None}
    return dict(list(found.items())[:MAX_SIDE_CURVES])


def find_rate_drops(curves: Mapping[str, tuple[str, Curve]]) -> list[float]:
    """Steps at which a learning rate drops at once; a rate that decays in every row has none."""
    drops: set[float] = set()
    for role, curve in curves.values():
        if role != "learning_rate" or len(curve) < 2:
            continue
        falls = np.flatnonzero(curve.value[1:] < RATE_DROP * curve.value[:-1]) + 1
        if len(falls) <= MAX_RATE_DROPS:
            drops |= {float(curve.step[row]) for row in falls}
    return sorted(drops)


def find_sure_accuracy(curves: Mapping[str, tuple[str, Curve]]) -> LossEvent | None:
    """D's accuracy stays near 1 to the end of the log."""
    for role, curve in curves.values():
        if role != "accuracy" or len(curve) < 16:
            continue
        finite = curve.value[np.isfinite(curve.value)]
        scale = 100.0 if len(finite) and float(finite.max()) > 1.5 else 1.0
        start = find_lasting_start(running_median(curve.value / scale) >= SURE_ACCURACY)
        if start is not None:
            level = 100 * float(np.median(curve.value[start:])) / scale
            return LossEvent(
                float(curve.step[start]), "discriminator_wins", f"{curve.name} is {level:.0f} % to the end"
            )
    return None
