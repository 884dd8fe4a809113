"""A training log as curves: one for each role, each with its own steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# generator, discriminator: losses. score_real, score_fake: D(x) and D(G(z)).
# step, epoch, batch, batches (per epoch): the position of a row.
LOSS_ROLES = ("generator", "discriminator")
SCORE_ROLES = ("score_real", "score_fake")
STEP_ROLES = ("step", "epoch", "batch", "batches")
LINE_KIND = "kind of line"  # column: lines of text that differ only in their numbers have the same


@dataclass(frozen=True, slots=True)
class Curve:
    """Values over increasing steps: step (n,), value (n,) float64. Values may be NaN or infinite."""

    name: str
    step: Array
    value: Array

    def __len__(self) -> int:
        return len(self.step)


@dataclass(frozen=True, slots=True)
class Log:
    """One training run as read.

    `columns`: role -> column name, for the document. `steps_per_epoch`: None if unknown. `problems`: why no verdict can
    rest on this log. `side_curves`: column -> (role, curve) of what was logged beside the losses. `other_columns`: what
    else there was. `pairs`: the other pairs of players; `runs`: other runs of the file. `name`: of this pair or run.
    `interleaved`: whether the runs were written at the same time.
    """

    curves: Mapping[str, Curve]
    step_unit: str
    format: str
    rows: int
    skipped_lines: int
    columns: Mapping[str, Any]
    steps_per_epoch: float | None = None
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    files: tuple[str, ...] = field(default=())
    side_curves: Mapping[str, tuple[str, Curve]] = field(default_factory=dict)
    other_columns: tuple[str, ...] = ()
    pairs: tuple[Log, ...] = ()
    runs: tuple[Log, ...] = ()
    name: str = ""
    interleaved: bool = False
