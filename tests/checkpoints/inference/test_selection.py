"""Hyperparameters of small generators inferred from BatchNorm statistics: activation, eps, dropout, prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from assumption_lookup import find_assumption
from torch import Tensor, nn
from toy_generators import DCGAN, calibrated, mlp, normal, save

from gandiag.checkpoints.architectures.mlp import rebuild as rebuild_mlp
from gandiag.checkpoints.batchnorm.latent_scale import estimate_trained_scale
from gandiag.checkpoints.batchnorm.moments import channel_moments, enable_dropout
from gandiag.checkpoints.inference import search, search_state
from gandiag.checkpoints.inference.candidate_networks import Assignment
from gandiag.checkpoints.inference.candidate_scorer import CandidateScorer
from gandiag.checkpoints.inference.decisions import decide_hyperparameter, select_candidate
from gandiag.checkpoints.inference.hyperparameters import CandidateScores, Hyperparameter, ScoreTables
from gandiag.checkpoints.inference.search import search_with_defaults
from gandiag.checkpoints.inference.sequential import build_sequential_generator, set_hyperparameters
from gandiag.checkpoints.loader import load_generator
from gandiag.checkpoints.state_dict import find_generator_weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.probes.batchnorm_mismatch import statistics_mismatch

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "leaky:0.2": lambda: nn.LeakyReLU(0.2)}
INITIAL = Assignment("relu", 1e-5, 0.0, "normal", 1.0, (0,))


class DropoutDCGAN(DCGAN):
    """Dropout after every activation, as in pix2pix and its derivatives."""

    def __init__(self, p: float) -> None:
        super().__init__(ngf=12)
        parts: list[nn.Module] = []
        for part in self.main:
            parts += [part, nn.Dropout(p)] if isinstance(part, nn.ReLU) else [part]
        self.main = nn.Sequential(*parts)


def test_activation_and_eps_are_right_for_nine_of_ten_networks(tmp_path: Path) -> None:
    right = 0
    for seed in range(10):
        act, eps = ("relu", "leaky:0.2")[seed % 2], (1e-5, 0.8)[seed // 2 % 2]
        if seed < 5:
            eps = 1e-5
            net: nn.Module = DCGAN(act=ACTIVATIONS[act], ngf=8 + seed)
        else:
            net = mlp((12, 48, 48, 48, 3072), norm=True, act=ACTIVATIONS[act], final=nn.Tanh(), eps=eps)
        network = load_generator(save(calibrated(net, normal(12), seed=seed).state_dict(), tmp_path))
        right += (find_assumption(network, "activation").value, find_assumption(network, "bn_eps").value) == (act, eps)
    assert right >= 9


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_training_dropout_is_recognized(tmp_path: Path, p: float) -> None:
    net = calibrated(DropoutDCGAN(p), normal(12), batches=200)
    network = load_generator(save(net.state_dict(), tmp_path))
    assumption = find_assumption(network, "dropout")
    assert (assumption.value, assumption.source) == (p, "metadata")
    z = torch.randn(4, 12, 1, 1)
    with torch.no_grad():
        assert torch.equal(network.forward(z), net.eval()(z))  # inactive at inference
    assert (statistics_mismatch(network) or 9) < 0.15


@pytest.mark.parametrize("p", [0.0, 0.5])
@pytest.mark.parametrize("spatial", [False, True])
def test_training_dropout_of_linear_layers_is_recognized(tmp_path: Path, p: float, spatial: bool) -> None:
    head: list[nn.Module] = []
    for n_in, n_out in ((12, 64), (64, 64 if not spatial else 24 * 16)):
        head += [nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.ReLU(), nn.Dropout(p)]
    tail: list[nn.Module] = [nn.Linear(64, 2)]
    if spatial:
        tail = [
            nn.Unflatten(1, (24, 4, 4)),
            nn.ConvTranspose2d(24, 16, 4, 2, 1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Dropout(p),
            nn.ConvTranspose2d(16, 3, 4, 2, 1),
            nn.Tanh(),
        ]
    net = calibrated(nn.Sequential(*head, *tail), normal(12), batches=200)
    assert find_assumption(load_generator(save(net.state_dict(), tmp_path)), "dropout").value == p


def test_enable_dropout_restores_modes_and_random_state() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).eval()
    before = torch.random.get_rng_state()
    with enable_dropout(net):
        assert net[1].training and not net.training
    assert not net[1].training and torch.equal(before, torch.random.get_rng_state())


def test_strict_rejects_an_undecided_activation(tmp_path: Path) -> None:
    file = save(calibrated(mlp((8, 32, 2), norm=True), normal(8)).state_dict(), tmp_path)
    with pytest.raises(LoadError) as caught:
        load_generator(file, AuditConfig(strict=True))
    assert "--activation" in caught.value.hint


def test_activation_and_eps_are_found_together(tmp_path: Path) -> None:
    """With relu any eps fits poorly, and with eps 1e-5 any activation: neither is found while the other is wrong."""
    net = calibrated(mlp((12, 48, 48, 48, 2), norm=True, act=nn.ELU, eps=0.8), normal(12))
    network = load_generator(save(net.state_dict(), tmp_path))
    activation, eps = find_assumption(network, "activation"), find_assumption(network, "bn_eps")
    assert (activation.value, eps.value) == ("elu", 0.8)
    assert activation.source == eps.source == "batch-norm"
    assert activation.fit is not None and activation.fit.ratio is not None and activation.fit.ratio >= 2


@pytest.mark.parametrize("spatial", [True, False])
def test_a_uniform_prior_on_the_unit_interval_is_recognized(tmp_path: Path, spatial: bool) -> None:
    """Its mean is not zero, so positions of one channel differ in their mean, which adds to the variance."""
    net = DCGAN() if spatial else mlp((12, 48, 48, 2), norm=True)
    state = calibrated(net, lambda rng: torch.rand(64, 12, generator=rng)).state_dict()
    network = load_generator(save(state, tmp_path))
    assert network.latent.prior == "unit" and (statistics_mismatch(network) or 9) < 0.15
    scale = estimate_trained_scale(network)
    assert scale is not None and scale.low <= 1 <= scale.high and scale.high / scale.low < 1.3


@pytest.mark.parametrize(
    "default, other, best",
    [
        (0.1, 0.09, 0),
        (0.1, 0.081, 0),
        (0.1, 0.079, 1),
        (0.1, 0.04, 1),  # a good fit must be better by a factor of 1.25
        (0.4, 0.3, 0),
        (0.4, 0.21, 0),
        (0.4, 0.19, 1),  # a poor fit by a factor of 2
    ],
)
def test_a_preferred_default_stands_until_another_candidate_fits_clearly_better(
    default: float, other: float, best: int
) -> None:
    stride = Hyperparameter("strides", (0, 1), 0, 1, 1, prefer_default=True)
    assert select_candidate(stride, {0: (default, INITIAL), 1: (other, replace(INITIAL, choices=(1,)))}) == best


class DifferentOutputs:
    """Stands in for a CandidateScorer: no two assignments give the same samples."""

    def same_outputs(self, first: Assignment, second: Assignment) -> bool:
        return False


@pytest.mark.parametrize(
    "scores, value, source, outcome, runner_up",
    [
        ((0.1, 0.3), "relu", "batch-norm", "settled", "elu"),
        ((0.3, 0.1), "elu", "batch-norm", "settled", "relu"),
        ((0.7, 1e9), "relu", "undecided", "none_fits", None),
        ((0.1, 0.15), "relu", "default", "default_kept", "elu"),
    ],
)
def test_a_decision_states_its_margin(
    scores: tuple[float, float], value: str, source: str, outcome: str, runner_up: str | None
) -> None:
    activation = Hyperparameter("activation", ("relu", "elu"), "activation", 0, 0, prefer_default=True)
    table: CandidateScores = {
        name: (score, replace(INITIAL, activation=name))
        for name, score in zip(activation.candidates, scores, strict=True)
    }
    scorer = cast(CandidateScorer, DifferentOutputs())
    assignment, assumption = decide_hyperparameter(scorer, activation, INITIAL, table)
    assert assignment.activation == value
    assert (assumption.setting, assumption.value, assumption.source) == ("activation", value, source)
    assert assumption.fit is not None
    assert (assumption.fit.outcome, assumption.fit.runner_up, assumption.fit.mismatch) == (
        outcome,
        runner_up,
        table[value][0],
    )


def test_set_hyperparameters_equals_a_new_network() -> None:
    weights = find_generator_weights(calibrated(mlp((8, 32, 32, 2), norm=True), normal(8)).state_dict(), name="g.pt")
    spec = rebuild_mlp(weights, AuditConfig())
    network = build_sequential_generator(spec, "relu", 1e-5)
    z = torch.randn(4, 8)
    for activation, eps in (("elu", 0.8), ("leaky:0.2", 1e-5)):
        changed = set_hyperparameters(network, spec, activation, eps, 0.0)
        assert torch.equal(changed(z), build_sequential_generator(spec, activation, eps)(z))


@pytest.mark.parametrize("limit, value", [("BUDGET", 1e8), ("PARAMETERS_IN_BUDGET", 1e3)])
def test_what_the_budget_does_not_cover_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    """A network that is too large, or turns out to take long, keeps the defaults; marked, and with readings."""
    file = save(calibrated(DCGAN(), normal(12), batches=5).state_dict(), tmp_path)
    ranked = find_assumption(load_generator(file, inspect_only=True), "activation")
    assert ranked.source == "batch-norm" and ranked.fit is not None and ranked.fit.outcome == "settled"
    monkeypatch.setattr(search_state, limit, value)
    inspected = load_generator(file, inspect_only=True)
    skipped = find_assumption(inspected, "activation")
    assert skipped.source == "default" and skipped.fit is not None and skipped.fit.outcome == "not_ranked"
    assert inspected.open_readings is not None and {"activation", "bn_eps"} <= set(inspected.open_readings.settings)


def test_where_a_default_stands_the_rest_is_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The better stride goes with another activation than the default: the result must be one scored assignment."""

    def mismatch(assignment: Assignment) -> float:
        table = {("relu", 0): 0.30, ("elu", 0): 0.40, ("relu", 1): 0.60, ("elu", 1): 0.25}
        return table[assignment.activation, assignment.choices[0]]

    stride = Hyperparameter("strides", (0, 1), 0, 0, 0, prefer_default=True)
    activation = Hyperparameter("activation", ("relu", "elu"), "activation", 0, 0)

    def exhaustive_search(
        scorer: object, hyperparameters: list[Hyperparameter], initial: Assignment
    ) -> tuple[Assignment, ScoreTables]:
        every = [stride.assign(activation.assign(initial, act), choice) for act in ("relu", "elu") for choice in (0, 1)]
        free = [entry for entry in every if stride in hyperparameters or entry.choices == initial.choices]
        tables: ScoreTables = {
            parameter.field: {
                value: min(
                    ((mismatch(entry), entry) for entry in free if parameter.value_of(entry) == value),
                    key=lambda scored: scored[0],
                )
                for value in parameter.candidates
            }
            for parameter in hyperparameters
        }
        return min(free, key=mismatch), tables

    monkeypatch.setattr(search, "beam_search", exhaustive_search)
    best, tables = search_with_defaults(cast(CandidateScorer, None), [stride, activation], INITIAL)
    assert (best.activation, best.choices) == ("relu", (0,))
    assert tables["activation"]["relu"][0] == 0.30


@pytest.mark.parametrize("shape", [(64, 5), (40, 5, 7, 3), (40, 5, 9)])
def test_moments_survive_a_mean_far_from_zero(shape: tuple[int, ...]) -> None:
    offsets = torch.arange(5.0).reshape(5, *(1 for _ in shape[2:]))
    x: Tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3 + offsets
    mean, var = channel_moments(x)
    rows = x.double().transpose(0, 1).flatten(1)
    assert torch.allclose(mean, rows.mean(1), rtol=1e-9, atol=1e-9) and torch.allclose(var, rows.var(1), rtol=1e-5)
