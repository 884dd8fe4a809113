"""`gandiag.losses`: reads a training log or series, analyzes the losses and adds findings with remedies. Torch-free."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gandiag.errors import ConfigError, ExitCode, SourceError
from gandiag.record import Finding, to_json_value
from gandiag.registry import import_target
from gandiag.training_logs.document import analyze_log
from gandiag.training_logs.reader import read_log
from gandiag.training_logs.reader_names import ColumnNames
from gandiag.training_logs.series import LOSS_ROLES, SCORE_ROLES, Array, Curve, Log
from gandiag.training_logs.step_alignment import average_duplicate_steps, select_final_rows
from gandiag.training_logs.verdict import FAILING_KINDS
from gandiag.verdict.training_rules import make_loss_findings


@dataclass(frozen=True, slots=True)
class Losses:
    """The verdict on a training log. `document`: schema gandiag.losses/1; `findings`: with remedies, worst first."""

    document: Mapping[str, Any]
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> str:
        """One word for the training.

        settled (a plateau is shown), no_instability_found, drifting, stepped, spiking, discriminator_at_chance,
        oscillating, diverging, mode_hopping, discriminator_wins, generator_wins, failed or inconclusive.
        """
        return str(self.document["verdict"])

    @property
    def exit_code(self) -> ExitCode:
        """1 for an instability (FAILING_KINDS), 0 for settled and no_instability_found, 3 for anything between."""
        if self.verdict in FAILING_KINDS:
            return ExitCode.COLLAPSED
        return ExitCode.OK if self.verdict in ("settled", "no_instability_found") else ExitCode.INSUFFICIENT

    def to_json(self, indent: int | None = 2) -> str:
        """The document and its findings as JSON text: sorted keys, no NaN."""
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
    columns: str | Sequence[str] | None = None,
    seed: int = 0,
) -> Losses:
    """Diagnose the losses of a training run: oscillation, divergence, or a dominating player.

    `print(losses("metrics.csv"))` shows the result.

    source: path of a log, several paths of one run, an array (n,) of one loss, or series: {"generator": (n,),
    "discriminator": (n,), "step": (n,)}, of which one loss is enough. generator, discriminator, step: column names,
    where the inferred ones are wrong. columns: the names of all columns of a table without a header, in order. Steps
    and periods are in units of the log's own step column, else in iterations
    (epoch × batches + batch). Oscillation is evidence on the training dynamics, neither necessary nor sufficient for
    collapse. Cost: seconds for a million rows.
    Raises SourceError if the source is not a log, ConfigError for an unknown column.
    """
    if isinstance(source, (str, os.PathLike)):
        source = [source]
    if isinstance(source, Sequence) and source and all(isinstance(entry, (str, os.PathLike)) for entry in source):
        headerless = columns.split(",") if isinstance(columns, str) else (columns or ())
        names = tuple(name.strip() for name in headerless)
        if columns is not None and not any(names):
            raise ConfigError("--columns names no column", "name them in order: --columns step,d,g")
        log = read_log(source, ColumnNames(generator, discriminator, step, names))
    else:
        log = _make_log(source)
    document = analyze_log(log, seed=seed)
    return Losses(document, make_loss_findings(document))


def _make_log(source: Any) -> Log:
    """A Log from arrays in memory."""
    arrays = _convert_series(dict(source) if isinstance(source, Mapping) else {"generator": source})
    has_steps = "step" in arrays
    n = len(next(iter(arrays.values())))
    step = arrays.pop("step", np.arange(n, dtype=np.float64))
    selection = select_final_rows(step)
    curves = {}
    for name, value in arrays.items():
        values = np.where(np.isnan(value), np.inf, value)  # NaN would be a gap in the log
        curves[name] = Curve(name, *average_duplicate_steps(step[selection.rows], values[selection.rows]))
    columns = {
        "step": "step" if has_steps else None,
        **dict.fromkeys(LOSS_ROLES),
        **{name: name for name in curves},
    }
    return Log(curves, "steps", "series", n, 0, columns, None, selection.notes, selection.problems)


def _convert_series(series: Mapping[str, Any]) -> dict[str, Array]:
    """Name -> float64 array (n,), validated."""
    roles = (*LOSS_ROLES, *SCORE_ROLES)
    unknown = sorted(set(series) - {*roles, "step"})
    if unknown:
        raise SourceError(f"there is no series called {unknown[0]!r}", f"use the names {', '.join(roles)} and step")
    try:
        arrays = {name: np.asarray(value, dtype=np.float64) for name, value in series.items()}
    except (TypeError, ValueError):
        raise SourceError("the series are not numeric", "pass arrays of numbers, one value per step") from None
    shapes = {value.shape for value in arrays.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1 or not any(name in arrays for name in LOSS_ROLES):
        raise SourceError(
            f"series of shapes {sorted(shapes)} are not losses",
            "pass arrays (n,) of equal length, one of them called generator or discriminator",
        )
    return arrays
