"""Audits of generators and samples down to the judged record, in process, on small vectors."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gandiag
from gandiag.checkpoints.batchnorm.latent_scale import TrainedScale, estimate_trained_scale
from gandiag.checkpoints.loader import LoadedGenerator
from gandiag.errors import ConfigError, ExitCode, OutputError, SourceError
from gandiag.record import FACT_REASON
from gandiag.verdict.policy import verdict_exit_code

N = 400


def ring(n: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.randint(8, (n,), generator=draw) / 8
    return torch.stack([2 * angle.cos(), 2 * angle.sin()], 1) + 0.02 * torch.randn(n, 2, generator=draw)


class Ring(nn.Module):
    """A generator of the first `modes` of the ring, exact by construction."""

    def __init__(self, modes: int, spread: float = 0.02) -> None:
        super().__init__()
        self.modes, self.spread = modes, spread
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, z: Tensor) -> Tensor:
        mode = (torch.special.ndtr(z[:, 0]) * self.modes).floor()
        angle = 2 * math.pi * mode / 8
        return self.weight * (torch.stack([2 * angle.cos(), 2 * angle.sin()], 1) + self.spread * z[:, 1:3])


REAL = ring(2 * N).numpy()


def run_audit(x: Any, real: Any = REAL, **settings: Any) -> gandiag.Record:
    latent = {"latent_dim": 4} if isinstance(x, nn.Module) else {}
    return gandiag.audit(x, real, n=N, **latent, **settings)


@pytest.fixture(scope="module")
def healthy() -> gandiag.Record:
    return run_audit(Ring(8))


@pytest.fixture(scope="module")
def half() -> gandiag.Record:
    """Of a generator of half of the modes."""
    return run_audit(Ring(4))


def test_healthy_and_half_of_the_modes(healthy: gandiag.Record, half: gandiag.Record) -> None:
    assert healthy.verdict == "healthy" and healthy.score.value < 0.1
    assert half.verdict == "collapsed" and half.score.value == pytest.approx(0.5, abs=0.1)
    assert half.kinds[:2] == ("partial", "mode_dropping")
    assert (half.modes["found"], half.modes["covered"], len(half.modes["missed"])) == (8, 4, 4)
    assert half.findings[0].rule == "GD103" and half.findings[0].remedies


def test_every_number_has_its_interval_and_floor(healthy: gandiag.Record) -> None:
    for key, entry in healthy.measurements.items():
        if entry.status != "ok" or entry.reason == FACT_REASON:
            continue
        assert entry.value is not None and math.isfinite(entry.value), key
        if entry.low is not None and entry.high is not None:
            assert entry.low <= entry.value <= entry.high, key
    for key in (
        "score",
        "precision",
        "recall",
        "density",
        "coverage",
        "frechet[identity]",
        "kid[identity]",
        "vendi_1",
        "pairwise_distance",
        "near_duplicates",
    ):
        entry = healthy.measurements[key]
        assert None not in (entry.low, entry.high, entry.floor), key


def test_a_constant_generator_is_complete_collapse_with_and_without_real_data() -> None:
    constant = Ring(1, spread=0.0)
    with_real, alone = run_audit(constant), run_audit(constant, None)
    assert with_real.verdict == "collapsed" and with_real.kinds == ("complete",)
    assert with_real.score.low >= 0.95
    assert alone.verdict == "collapsed" and alone.score.basis == "degeneracy" and alone.kinds == ("complete",)


def test_without_real_data_missing_modes_are_not_claimed_either_way() -> None:
    record = run_audit(Ring(4), None)
    assert record.verdict == "not_degenerate" and "GD503" in {finding.rule for finding in record.findings}
    assert record.measurements["precision"].status == "not_measured"


def test_copies_of_the_real_data_are_called_memorised_before_anything_else() -> None:
    """Every real sample is searched, although the score compares only some."""
    draw = np.random.default_rng(0)
    real = draw.normal(size=(800, 16)).astype(np.float32)
    copied = run_audit(real[draw.permutation(800)[:N]] + 0.1 * draw.normal(size=(N, 16)).astype(np.float32), real)
    assert copied.verdict == "memorised" and copied.kinds[0] == "memorised"
    assert copied.findings[0].rule == "GD302" and copied.findings[0].level == "error"
    assert str(copied).startswith("MEMORISED") and verdict_exit_code(copied) == ExitCode.INSUFFICIENT
    assert gandiag.gate(copied).code == 1 and gandiag.gate(copied, {"allow": ["GD302"]}).code == 0
    few = run_audit(real[np.arange(N) % 40], real)
    assert few.verdict == "collapsed" and few.kinds[:2] == ("memorised", "partial")
    assert few.findings[0].rule == "GD302" and str(few).startswith("MEMORISED, COLLAPSED")
    assert few.measurements["exact_copies"].value == 1
    fresh = run_audit(draw.normal(size=(N, 16)).astype(np.float32), real)
    assert fresh.verdict == "healthy" and "GD302" not in {finding.rule for finding in fresh.findings}


def test_results_do_not_depend_on_the_batch_size(half: gandiag.Record) -> None:
    assert comparable_document(run_audit(Ring(4), batch_size=7)) == comparable_document(half)


def comparable_document(record: gandiag.Record) -> dict[str, Any]:
    """The record without seconds and settings."""
    document = json.loads(record.to_json())
    provenance = document.pop("provenance")
    del provenance["seconds"], provenance["config"]
    return {**document, "provenance": provenance}


def test_the_model_is_left_as_it_was() -> None:
    """With a score so low that known losses are injected: every stage of an audit runs."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1]
    record = run_audit(module, bn="standing")
    assert record.score.injected
    assert torch.equal(torch.get_rng_state(), states[0]), "the global random state changed"
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert module.training and all(parameter.requires_grad for parameter in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_samples_can_be_the_subject() -> None:
    record = run_audit(ring(N, seed=5).numpy())
    assert record.score.value < 0.1 and record.subject["latent"] is None and record.response["axis"] is None
    with pytest.raises(SourceError, match="1 sample"):
        run_audit(np.zeros((1, 2), np.float32))


class Scaled(nn.Module):
    """A generator whose BatchNorm statistics are those of training at another latent scale."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(16, 64, bias=False), nn.BatchNorm1d(64)
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.first.weight.copy_(torch.randn(64, 16, generator=draw))
            self.norm.running_var.copy_(scale**2 * self.first.weight.square().sum(1))
            self.norm.num_batches_tracked.fill_(1_000)
        self.scale = scale

    def forward(self, z: Tensor) -> Tensor:
        h = self.norm(self.first(z)) / 8
        mode = (torch.special.ndtr(h[:, 0] * 8) * 8).floor().clamp(0, 7)
        angle = 2 * math.pi * mode / 8
        return torch.stack([2 * angle.cos(), 2 * angle.sin()], 1) + 0.02 * h[:, 1:3].mul(8)


def test_a_wrong_scale_is_reported_and_the_verdict_is_that_of_the_trained_scale() -> None:
    record = gandiag.audit(Scaled(0.02), REAL, n=N, latent_dim=16)
    assert record.subject["latent"]["trained_scale"]["value"] == pytest.approx(0.02, rel=0.05)
    assert "wrong_scale" in record.kinds
    assert record.findings[0].rule == "GD201"
    assert record.verdict == "healthy"
    assert record.score.limit is not None and record.measurements["score@1"].low > 2 * record.score.limit


def test_a_uniform_prior_is_recognized_and_not_reported_as_a_wrong_scale() -> None:
    record = gandiag.audit(Scaled(3**-0.5), n=N, latent_dim=16)
    assert record.subject["latent"]["prior"] == "uniform" and "wrong_scale" not in record.kinds
    assert record.subject["latent"]["trained_scale"]["value"] == pytest.approx(1.0, rel=0.05)
    assert any(
        "uniform" in entry["value"] and entry["source"] == "batch-norm" for entry in record.subject["assumptions"]
    )
    with_normal = gandiag.audit(Scaled(3**-0.5), n=N, latent_dim=16, prior="normal")
    assert "wrong_scale" in with_normal.kinds


def test_the_trained_scale_is_estimated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimates can take seconds; a second one is made only for a prior inferred from the first."""
    calls = []

    def estimate(generator: LoadedGenerator) -> TrainedScale | None:
        calls.append(generator.latent.prior)
        return estimate_trained_scale(generator)

    monkeypatch.setattr("gandiag.pipeline.subject.estimate_trained_scale", estimate)
    monkeypatch.setattr("gandiag.probes.batchnorm_mismatch.estimate_trained_scale", estimate)
    gandiag.audit(Scaled(0.5), n=100, latent_dim=16)
    assert calls == ["normal"]
    calls.clear()
    gandiag.audit(Scaled(3**-0.5), n=100, latent_dim=16)
    assert calls == ["normal", "uniform"]


class Diverged(nn.Module):
    """NaN where the latent's first two coordinates are above 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, z: Tensor) -> Tensor:
        return torch.where(z[:, :2] > 1, torch.nan, z[:, :2]) * self.weight


def test_nan_outputs_stop_the_audit_with_a_count() -> None:
    with pytest.raises(OutputError, match="contain NaN"):
        run_audit(Diverged())


def test_mistakes_in_the_call_are_named() -> None:
    with pytest.raises(ConfigError, match="bugdet"):
        gandiag.audit(Ring(8), REAL, bugdet="quick")
    with pytest.raises(SourceError):
        gandiag.audit(Ring(8), object(), latent_dim=4)
    with pytest.raises(SourceError, match="vector"):
        run_audit(Ring(8), np.zeros((500, 3), np.float32))


def test_too_few_samples_are_inconclusive_and_have_no_score() -> None:
    record = gandiag.audit(Ring(8), REAL, n=50, latent_dim=4)
    assert record.verdict == "inconclusive" and record.score.value is None
    assert any("too few" in finding.text for finding in record.findings)
