"""Above --neighbours-max, what compares pairs looks at a subset by seed, and the record says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import gandiag
from gandiag.config import NEIGHBOR_ROWS, AuditConfig
from gandiag.errors import ConfigError


def draw_rows(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centers = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    return centers[torch.randint(3, (n,), generator=generator)] + torch.randn(n, 2, generator=generator)


def test_pairs_are_compared_in_a_subset_and_sums_over_all() -> None:
    record = gandiag.audit(draw_rows(400, 1), real=draw_rows(800, 2), neighbours_max=150, exhibits=False)
    fewer = gandiag.audit(draw_rows(400, 1), real=draw_rows(800, 2), n=150, exhibits=False)
    assert record.score is not None and record.score.n_fake == 150 and record.score.n_real == 300
    assert record.measurements["recall"].n == 150 and record.measurements["frechet[identity]"].n == 400
    (remark,) = (text for text in record.provenance["remarks"] if "neighbours-max" in text)
    assert "150 of the 400 samples" in remark and "(--neighbours-max)" in str(record)
    assert record.score.n_drawn == 400
    assert replace(record.score, n_drawn=0) == fewer.score  # the subset is that of an audit of so many samples


def test_all_samples_are_compared_where_they_are_few() -> None:
    record = gandiag.audit(draw_rows(200, 1), real=draw_rows(400, 2), exhibits=False)
    assert record.score is not None and record.score.n_fake == 200
    assert not any("neighbours-max" in text for text in record.provenance["remarks"])


def test_the_limit_depends_on_the_device_and_has_bounds() -> None:
    config = AuditConfig()
    assert (config.n_neighbors("cpu"), config.n_neighbors("cuda")) == (NEIGHBOR_ROWS["cpu"], NEIGHBOR_ROWS["gpu"])
    assert AuditConfig(neighbours_max=500).n_neighbors("cuda") == 500
    with pytest.raises(ConfigError, match="--neighbours-max is 99"):
        AuditConfig(neighbours_max=99)
