"""What the search over readings of one file may still cost, and what its passes have found.

The limit counts multiplications, not seconds: a file reads the same on every machine, however busy it is. A pass that
is recalled costs as much as it did, so that what is stored changes the time alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

BUDGET = 1.3e11  # multiplications of the search over one file: four to five seconds
PASS_OVERHEAD = 3e7  # multiplications that take as long as building a network and starting a pass
PARAMETERS_IN_BUDGET = 2e7  # of a larger network one pass costs more, and the budget grows with it

PassResults = dict[str, tuple[float, ...]]  # by pass: multiplications spent, then what it found


class OutOfBudget(Exception):
    """Scoring the candidates takes longer than is allowed."""


@dataclass(slots=True)
class SearchState:
    """`remaining`: multiplications, roughly, that all passes together may still take; `reserved`: those that are kept
    for later. `results`: of all passes so far; `n_new`: how many were not recalled.
    """

    remaining: float = math.inf
    results: PassResults = field(default_factory=dict)
    n_new: int = 0
    reserved: float = 0.0
    seen: set[str] = field(default_factory=set)  # passes of this search, which are counted once

    def spend(self, multiplications: float) -> None:
        """Count the cost of a pass, before it runs. OutOfBudget where it costs more than is left."""
        if self.remaining - multiplications < self.reserved:
            raise OutOfBudget
        self.remaining -= multiplications

    def recall(self, key: str, compute: Callable[[], tuple[float, ...]]) -> tuple[float, ...]:
        """What a pass found, and found before if it is known. `key`: identifies it among all passes over the file."""
        if key in self.results:
            spent, *found = self.results[key]
            if key not in self.seen:
                self.spend(spent)
                self.seen.add(key)
            return tuple(found)
        before = self.remaining
        values = compute()
        spent = before - self.remaining if math.isfinite(before) else 0.0
        self.results[key] = (spent, *values)
        self.n_new += 1
        self.seen.add(key)
        return values


def search_budget(n_parameters: int, *, inspect_only: bool) -> float:
    """Multiplications for the search over a network of this size; none where one pass takes too long to inspect it."""
    if n_parameters <= PARAMETERS_IN_BUDGET:
        return BUDGET
    return 0.0 if inspect_only else BUDGET * n_parameters / PARAMETERS_IN_BUDGET
