"""Long logs in bounded memory: what is averaged and what must survive averaging."""

from __future__ import annotations

import numpy as np
import pytest

from gandiag.training_logs.bounded_store import ColumnStore
from gandiag.training_logs.formats.registry import RowBlock
from gandiag.training_logs.step_alignment import select_final_rows

N = 1000


def fill_store(columns: dict[str, np.ndarray], chunks: list[int], max_rows: int) -> ColumnStore:
    store = ColumnStore(lambda name: name == "step", max_rows)
    for low, high in zip([0, *chunks], [*chunks, N], strict=True):
        store.add(RowBlock({name: value[low:high] for name, value in columns.items()}, high - low))
    return store


@pytest.mark.parametrize("chunks", [[], [7, 8, 300, 301, 999], list(range(1, N))])
def test_few_rows_are_kept_and_the_chunks_do_not_matter(chunks: list[int]) -> None:
    """Rows of one group are averaged however they arrive; the last group may be smaller."""
    step, loss = np.arange(N) * 3.0, np.random.default_rng(0).standard_normal(N)
    store = fill_store({"step": step, "loss": loss}, chunks, 64)
    size, averaged = store.group_size, store.pop_columns()
    assert store.rows == N and 1000 / size <= 66 and size in (16, 32)
    groups = [np.arange(low, min(low + size, N)) for low in range(0, N, size)]
    assert np.allclose(averaged["loss"], [loss[group].mean() for group in groups], rtol=0, atol=1e-12)
    assert np.array_equal(averaged["step"], [step[group[0]] for group in groups])


def test_a_short_log_is_kept_to_the_bit() -> None:
    loss = np.random.default_rng(1).standard_normal(N)
    store = fill_store({"loss": loss}, [10, 500], N)
    assert store.group_size == 1 and np.array_equal(store.pop_columns()["loss"], loss)


def test_gaps_and_broken_losses() -> None:
    """A gap does not affect its group; a broken loss (infinite here) makes its group infinite."""
    loss = np.where(np.arange(N) % 2 == 0, 4.0, np.nan)
    loss[600] = np.inf
    late = np.full(N, 1.0)
    store = ColumnStore(lambda name: False, 64)
    store.add(RowBlock({"loss": loss[:500]}, 500))
    store.add(RowBlock({"loss": loss[500:], "late": late[500:]}, 500))
    averaged = store.pop_columns()
    broken = 600 // store.group_size
    assert np.isinf(averaged["loss"][broken]) and (np.delete(averaged["loss"], broken) == 4.0).all()
    assert np.isnan(averaged["late"][: 500 // store.group_size]).all() and averaged["late"][-1] == 1.0


def test_a_resume_is_still_resolved() -> None:
    """Rows 0 … 599 of steps, then from step 400 on again."""
    step = np.r_[np.arange(600.0), 400 + np.arange(400.0)]
    loss = np.r_[np.zeros(600), np.ones(400)]
    averaged = fill_store({"step": step, "loss": loss}, [123], 200).pop_columns()
    selection = select_final_rows(averaged["step"])
    assert "resume" in selection.notes[0]
    assert averaged["step"][selection.rows][-1] >= 792 and (np.diff(averaged["step"][selection.rows]) > 0).all()
    assert averaged["loss"][selection.rows][averaged["step"][selection.rows] >= 400].min() == 1.0
