"""A table as a set of samples, and the encoding of a generated and a real table by one encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.interfaces import Assumption, OutputSpec, SampleKind
from gandiag.sampling.arrays import ArrayReader, open_array
from gandiag.sampling.tables.columns import RawTable
from gandiag.sampling.tables.encoder import TableEncoder, fit_encoder
from gandiag.sampling.tables.types import plan_columns

MAX_LISTED_NAMES = 12


@dataclass(frozen=True, slots=True)
class TableReader:
    """Rows of a table: encoded (B, width) once there is an encoder. `notes`: how the columns are read."""

    table: RawTable
    encoder: TableEncoder | None = None
    notes: tuple[Assumption, ...] = ()
    kind: SampleKind = "table"
    labels: Tensor | None = None
    class_names: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        return self.table.name

    @property
    def n(self) -> int:
        return self.table.n

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.table.columns) if self.encoder is None else self.encoder.width,)

    def match_output(self, output: OutputSpec) -> TableReader | ArrayReader:
        """For a generator of vectors: the columns as (N, D) numbers where there are D columns and all are numbers."""
        columns = self.table.columns
        if output.kind != "vector" or output.shape != (len(columns),):
            return self
        other = next((column.name for column in columns if not column.is_numeric), None)
        if other is not None:
            raise SourceError(
                f"{self.name}: column {other!r} holds words, and the generator makes vectors of numbers",
                "encode the real table as the generator was trained, or pass the generated rows as a table",
            )
        return open_array(np.stack([column.values for column in columns], 1).astype(np.float32), self.name)

    def read(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        encoder = self.encoder or fit_pair(self, None, {})[0]
        return encoder.encode(self.table.take(indices.numpy())), None

    def fingerprint(self, indices: Tensor) -> str:
        return self.table.take(indices.numpy()).fingerprint()


def fit_pair(
    real: TableReader, fake: TableReader | None, given: Mapping[str, str]
) -> tuple[TableEncoder, tuple[Assumption, ...]]:
    """An encoder of both tables and what it assumes. `given`: column types that the user states."""
    other = None if fake is None else fake.table
    plans = plan_columns(real.table, other, given)
    encoder = fit_encoder(real.table, other, plans)
    return encoder, _describe_columns(encoder, given)


def with_encoder(reader: TableReader, encoder: TableEncoder, notes: tuple[Assumption, ...] = ()) -> TableReader:
    """The same table, read through an encoder."""
    return replace(reader, encoder=encoder, notes=notes)


def _describe_columns(encoder: TableEncoder, given: Mapping[str, str]) -> tuple[Assumption, ...]:
    names = {
        kind: [column.name for column in encoder.columns if column.kind == kind]
        for kind in ("number", "category", "date")
    }
    parts = [f"{kind}: {_list_names(listed)}" for kind, listed in names.items() if listed]
    source = "flag" if set(given) >= {column.name for column in encoder.columns} else "values"
    notes = [Assumption("columns", "; ".join(parts), source)]
    if encoder.left_out:
        listed_out = _list_names([f"{plan.name} ({plan.reason})" for plan in encoder.left_out])
        notes.append(Assumption("columns_left_out", listed_out, "values"))
    return tuple(notes)


def _list_names(names: Sequence[str]) -> str:
    """ "a, b, c", or the first MAX_LISTED_NAMES "and 88 more"."""
    hidden = len(names) - MAX_LISTED_NAMES
    return ", ".join(names[:MAX_LISTED_NAMES]) + (f" and {hidden} more" if hidden > 0 else "")
