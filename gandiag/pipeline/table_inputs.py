"""Tables and vectors whose columns have units of their own: encoded column by column against the real data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gandiag.config import AuditConfig
from gandiag.errors import ConfigError, SourceError
from gandiag.interfaces import Assumption, MetricResult, OutputSpec
from gandiag.metrics.closest_records import measure_closest_records
from gandiag.pipeline.subject import AuditSubject, open_real_data
from gandiag.sampling.arrays import ArrayReader
from gandiag.sampling.sources import SampleSet
from gandiag.sampling.tables.columns import RawTable, table_from_array
from gandiag.sampling.tables.encoder import TableEncoder, fit_encoder
from gandiag.sampling.tables.reader import TableReader, fit_pair, with_encoder
from gandiag.sampling.tables.types import ColumnPlan, parse_column_types, plan_columns

MAX_FIT_ROWS = 20_000  # rows of vectors that the ranks are taken from
MAX_SCALE_RATIO = 100.0  # between columns of vectors, above which one distance cannot serve all of them
SCALE_QUANTILES = (0.005, 0.995)  # the distance between them is the scale of a column
VARYING_QUANTILES = (0.1, 0.9)  # a column where these are equal hardly varies: pixels at an edge


@dataclass(frozen=True, slots=True)
class OpenTables:
    """The subject and its real data; `encoder`: of both where they are tables. `holdout`: rows kept out of training."""

    subject: AuditSubject
    real: SampleSet | None
    encoder: TableEncoder | None = None
    holdout: RawTable | None = None

    def measure_closest_records(self, seed: int) -> MetricResult:
        """How near generated rows are to real ones; nothing where these are not two tables."""
        if self.real is None or self.encoder is None or self.subject.samples is None:
            return MetricResult()
        real, fake = self.real.reader, self.subject.samples.reader
        if not (isinstance(real, TableReader) and isinstance(fake, TableReader)):
            return MetricResult()
        return measure_closest_records(self.encoder.columns, real.table, fake.table, self.holdout, seed=seed)


def open_tables(subject: AuditSubject, real_source: Any, holdout_source: Any, config: AuditConfig) -> OpenTables:
    """Open the real data, read through one encoder with the subject where that is a table.

    SourceError where the real data are no table of the same columns.
    """
    fake = None if subject.samples is None else subject.samples.reader
    if not isinstance(fake, TableReader):
        if config.columns is not None:
            raise ConfigError(
                f"--columns states the columns of a table, and these samples are {subject.output.kind}s",
                "leave it out, or pass a CSV or Parquet table",
            )
        if holdout_source is not None:
            raise ConfigError("--holdout is for tables", "leave it out, or pass a CSV or Parquet table")
        return OpenTables(subject, None if real_source is None else open_real_data(real_source, config, subject.output))
    given = parse_column_types(config.columns)
    if real_source is None:
        if holdout_source is not None:
            raise ConfigError("--holdout needs the training rows too", "pass them with --real")
        encoder, notes = fit_pair(fake, None, given)
        return OpenTables(_with_reader(subject, with_encoder(fake, encoder, notes)), None, encoder)
    real_set = open_real_data(real_source, config)
    real_reader = _as_table(real_set, fake)
    encoder, notes = fit_pair(real_reader, fake, given)
    holdout = None
    if holdout_source is not None:
        holdout = _as_table(open_real_data(holdout_source, config), fake).table
        plan_columns(holdout, real_reader.table, given)  # raises where types differ
    real_set = real_set.with_reader(with_encoder(real_reader, encoder))
    return OpenTables(_with_reader(subject, with_encoder(fake, encoder, notes)), real_set, encoder, holdout)


def fit_vectors(real: SampleSet | None, output: OutputSpec, config: AuditConfig) -> TableEncoder | None:
    """An encoder of vectors by column, where --features asks for one or the columns differ wildly in scale."""
    if output.kind != "vector" or real is None or config.features not in (None, "table"):
        return None
    batches = list(real.iter_batches(4096, output=output, limit=MAX_FIT_ROWS))
    rows = torch.cat([batch.samples for batch in batches]).flatten(1).double().numpy()  # (N, D)
    if config.features is None and not scale_ratio(rows) > MAX_SCALE_RATIO:
        return None
    table = table_from_array(rows, real.name)
    varied = [bool((column.values != column.values[0]).any()) for column in table.columns]
    plans = [
        ColumnPlan(column.name, "number") if varies else ColumnPlan(column.name, None, "constant in the real data")
        for column, varies in zip(table.columns, varied, strict=True)
    ]
    if not any(varied):
        return None
    return fit_encoder(table, None, plans)


def scale_ratio(rows: npt.NDArray[np.float64]) -> float:
    """The largest over the smallest scale of the columns of (N, D) rows; columns that hardly vary do not count."""
    low, inner_low, inner_high, high = np.quantile(rows, sorted((*SCALE_QUANTILES, *VARYING_QUANTILES)), axis=0)
    scales = (high - low)[inner_high > inner_low]
    return float(scales.max() / scales.min()) if len(scales) > 1 else 1.0


def describe_vectors(encoder: TableEncoder | None, config: AuditConfig) -> tuple[Assumption, ...]:
    """That vectors are compared column by column; nothing where the user asked for it."""
    if encoder is None or config.features is not None:
        return ()
    note = "columns differ in scale more than 100 times: each is ranked against its real values"
    return (Assumption("features", "table", "values", note=note),)


def _as_table(samples: SampleSet, fake: TableReader) -> TableReader:
    """The real data as a table; an array takes the column names of the generated table, in order."""
    reader = samples.reader
    if isinstance(reader, TableReader):
        return reader
    names = fake.table.column_names
    if not isinstance(reader, ArrayReader) or reader.kind != "vector" or reader.shape != (len(names),):
        raise SourceError(
            f"{samples.name} contains {samples.kind} samples of shape {reader.shape or 'mixed'}, and the generated "
            f"table has {len(names):,} columns",
            "pass the real table",
        )
    return TableReader(table_from_array(reader.array, reader.name, names))


def _with_reader(subject: AuditSubject, reader: TableReader) -> AuditSubject:
    assert subject.samples is not None
    samples = subject.samples.with_reader(reader)
    return replace(subject, samples=samples, output=samples.output, assumptions=(*subject.assumptions, *reader.notes))
