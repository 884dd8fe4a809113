"""What `gandiag.load` shows of a reading, its old names, and joblib files."""

from pathlib import Path

import numpy as np
import pytest
import torch

import gandiag
from gandiag.errors import LoadError

FIXTURE = Path(__file__).parents[2] / "fixtures" / "ring_healthy.pt"


def test_assumptions_are_in_words_and_as_data() -> None:
    sampler = gandiag.load(FIXTURE)
    entry = next(entry for entry in sampler.assumptions if entry.setting == "latent_dim")
    assert entry.what == "latent size (--latent-dim)" and entry.source == "shapes"
    assert entry.value == str(entry.data) and entry.data == sampler.latent.dim
    assert all(isinstance(part, str) for one in sampler.assumptions for part in (one.what, one.value, one.source))
    record = gandiag.audit(sampler, n=100, budget="quick", exhibits=False)
    assert {"what", "value", "setting", "data"} <= set(record.subject["assumptions"][0])


def test_run_is_the_old_name_of_generate() -> None:
    sampler = gandiag.load(FIXTURE)
    z = torch.randn(3, *sampler.latent.shape)
    with pytest.warns(DeprecationWarning, match="generate"):
        old = sampler.run(z, None)
    assert torch.equal(old, sampler.generate(z))


def test_joblib_files_are_named(tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    arrays = {"0.weight": np.ones((64, 32), "f4"), "0.bias": np.ones(64, "f4")}
    for compress in (0, 3):
        joblib.dump(arrays, tmp_path / "net.joblib", compress=compress)
        with pytest.raises(LoadError, match=r"net.joblib is a joblib file(.|\n)*np.savez"):
            gandiag.load(tmp_path / "net.joblib")
