"""What the losses of a training say: `gandiag.losses`, where reading, judging and advice meet. Torch-free."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gandiag.errors import ExitCode, SourceError
from gandiag.record import Finding, to_json_value
from gandiag.registry import import_target
from gandiag.training_logs.reader import ColumnNames, read_log
from gandiag.training_logs.series import LOSS_ROLES, SCORE_ROLES, Curve, Log
from gandiag.training_logs.step_alignment import average_duplicate_steps, select_final_rows
from gandiag.training_logs.verdict import analyze_log
from gandiag.verdict.training_rules import make_loss_findings


@dataclass(frozen=True, slots=True)
class Losses:
    """The verdict on a training log. `document`: schema gandiag.losses/1; `findings`: with remedies, worst first."""

    document: Mapping[str, Any]
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> str:
        """settled, oscillating, diverging, mode_hopping, discriminator_wins, generator_wins, failed or inconclusive."""
        return str(self.document["verdict"])

    @property
    def exit_code(self) -> ExitCode:
        """0 settled, 3 inconclusive, 1 anything else."""
        return {"settled": ExitCode.OK, "inconclusive": ExitCode.INSUFFICIENT}.get(self.verdict, ExitCode.COLLAPSED)

    def to_json(self, indent: int | None = 2) -> str:
        """The document as JSON text: sorted keys, no NaN."""
        return json.dumps(
            to_json_value({**self.document, "findings": self.findings}),
            indent=indent,
            sort_keys=True,
            allow_nan=False,
            ensure_ascii=False,
        )

    def __str__(self) -> str:
        return str(import_target("gandiag.report.log_text:render_losses")(self.document, self.findings))


def losses(
    source: Any,
    *,
    generator: str | None = None,
    discriminator: str | None = None,
    step: str | None = None,
    seed: int = 0,
) -> Losses:
    """What do the losses of this training say? `print(losses("metrics.csv"))` shows it.

    source: path of a log, several paths of one run, or series: {"generator": (n,), "discriminator": (n,), "step": (n,)}, of which
    one loss is enough, or an array (n,) of one loss. generator, discriminator, step: columns, where the inferred ones are wrong.
    Steps and periods are in the log's own step column, or in iterations (epoch × batches + batch). Oscillation is evidence
    on the dynamics; it is neither necessary nor sufficient for collapse. Cost: seconds for a million rows.
    Raises SourceError for what is no log, ConfigError for a column that is not there.
    """
    if isinstance(source, (str, os.PathLike)):
        source = [source]
    if isinstance(source, Sequence) and source and all(isinstance(entry, (str, os.PathLike)) for entry in source):
        log = read_log(source, ColumnNames(generator, discriminator, step))
    else:
        log = _of_series(source)
    document = analyze_log(log, seed=seed)
    return Losses(document, make_loss_findings(document))


def _of_series(source: Any) -> Log:
    given = dict(source) if isinstance(source, Mapping) else {"generator": source}
    unknown = sorted(set(given) - {*LOSS_ROLES, *SCORE_ROLES, "step"})
    if unknown:
        raise SourceError(
            f"there is no series called {unknown[0]!r}", f"call them {', '.join((*LOSS_ROLES, *SCORE_ROLES))} and step"
        )
    try:
        arrays = {name: np.asarray(value, dtype=np.float64) for name, value in given.items()}
    except (TypeError, ValueError):
        raise SourceError("these series are not numbers", "pass arrays of numbers, one value a step") from None
    sizes = {value.shape for value in arrays.values()}
    if len(sizes) != 1 or len(next(iter(sizes))) != 1 or not any(name in arrays for name in LOSS_ROLES):
        raise SourceError(
            f"series of shapes {sorted(sizes)} are no losses",
            "pass arrays (n,) of one length, one of them generator or discriminator",
        )
    n = next(iter(sizes))[0]
    order = select_final_rows(arrays.pop("step", np.arange(n, dtype=np.float64)))
    where = np.asarray(given["step"], dtype=np.float64) if "step" in given else np.arange(n, dtype=np.float64)
    curves = {
        name: Curve(
            name, *average_duplicate_steps(where[order.rows], np.where(np.isnan(value), np.inf, value)[order.rows])
        )
        for name, value in arrays.items()
    }
    columns = {
        "step": "step" if "step" in given else None,
        **dict.fromkeys(LOSS_ROLES),
        **{name: name for name in curves},
    }
    return Log(curves, "steps", "series", n, 0, columns, None, order.notes, order.problems)
