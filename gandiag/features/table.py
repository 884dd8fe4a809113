"""Features of tables: every column by rank or category, see `gandiag.sampling.tables.encoder`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gandiag.errors import FeatureError
from gandiag.features.extractors import ExtractorRequest
from gandiag.interfaces import OutputSpec
from gandiag.sampling.tables.columns import table_from_array
from gandiag.sampling.tables.encoder import TableEncoder


@dataclass(frozen=True, slots=True)
class TableExtractor:
    """Rows of a table, which are read encoded, as they are; vectors column by column against the real data: (B, D)."""

    encoder: TableEncoder
    name: str = "table"
    fingerprint: str = "table:1"
    cacheable: bool = False

    @property
    def dim(self) -> int:
        return self.encoder.width

    def __call__(self, samples: Tensor, output: OutputSpec) -> Tensor:
        rows = samples.detach().flatten(1).cpu()  # (B, D)
        if output.kind == "table":
            return rows.float()
        return self.encoder.encode(table_from_array(rows.double().numpy(), "samples"))


def create_table(request: ExtractorRequest) -> TableExtractor:
    """The factory of "table"."""
    if request.encoder is None:
        raise FeatureError(
            "the features table compare columns with real data, and these samples have none",
            "pass --real, or use identity for vectors",
        )
    return TableExtractor(request.encoder)
