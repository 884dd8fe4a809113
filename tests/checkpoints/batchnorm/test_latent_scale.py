"""The latent scale of the training, recovered from BatchNorm statistics that the test itself made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from assumption_lookup import find_assumption
from torch import Tensor, nn
from toy_generators import DCGAN, calibrated, mlp, save, shuffled

from gandiag.checkpoints.batchnorm.first_layer import FirstLayer, estimate_latent_std
from gandiag.checkpoints.batchnorm.label_detection import LabelSplit, find_label_split
from gandiag.checkpoints.batchnorm.latent_scale import TrainedScale, estimate_trained_scale
from gandiag.checkpoints.loader import load_generator, wrap_module
from gandiag.config import AuditConfig
from gandiag.probes.batchnorm_mismatch import statistics_mismatch

# 19 batches of 64 stand behind an exponential average: with D latents the variance is known to sqrt(2 / (19 * 64 * D)),
# which is 1.2 % at D = 12, and the std to half of that. 4 % is more than six of these errors.
TOLERANCE = 0.04


def assert_scale(estimate: TrainedScale | None, truth: float) -> TrainedScale:
    """The estimate, if it is close to the true scale and its interval is narrow."""
    assert estimate is not None
    assert estimate.value == pytest.approx(truth, rel=TOLERANCE)
    assert estimate.low <= estimate.value <= estimate.high
    # The interval contains the truth, with the slack of one more half-width: 95 % intervals miss now and then.
    slack = (estimate.high - estimate.low) / 2
    assert estimate.low - slack <= truth <= estimate.high + slack
    assert estimate.high - estimate.low < 0.2 * truth
    return estimate


def make_network(kind: str, scale: float, *, uniform: bool = False, batches: int = 80) -> nn.Module:
    """A generator whose BatchNorm statistics come from latents at this scale."""

    def draw(rng: torch.Generator) -> Tensor:
        z = 2 * torch.rand(64, 12, generator=rng) - 1 if uniform else torch.randn(64, 12, generator=rng)
        return scale * z

    builders: dict[str, Callable[[], nn.Module]] = {
        "transposed": lambda: DCGAN(12, 8, blocks=2),
        "biased": lambda: DCGAN(12, 8, blocks=2, bias=True),
        "mlp": lambda: mlp((12, 64, 64, 2), norm=True),
    }
    return calibrated(builders[kind](), draw, batches=batches)


@pytest.mark.parametrize("kind", ["transposed", "biased", "mlp"])
@pytest.mark.parametrize("scale", [0.02, 1.0, 3.0])
def test_the_training_scale_is_recovered(tmp_path: Path, kind: str, scale: float) -> None:
    file = save(make_network(kind, scale).state_dict(), tmp_path)
    estimate = assert_scale(estimate_trained_scale(load_generator(file)), scale)
    assert "BatchNorm variance after the first layer" in estimate.source and "prior on" not in estimate.source


@pytest.mark.parametrize("scale", [0.02, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh, lambda: nn.LeakyReLU(0.2)])
def test_the_scale_is_recovered_after_an_activation(scale: float, act: Callable[[], nn.Module]) -> None:
    """As in PyTorch-GAN, whose first layers have no BatchNorm."""
    net = nn.Sequential(nn.Linear(12, 48), act(), nn.Linear(48, 64), nn.BatchNorm1d(64, 0.8), act(), nn.Linear(64, 2))
    calibrated(net, lambda rng: scale * torch.randn(64, 12, generator=rng), batches=80)
    estimate = estimate_trained_scale(wrap_module(net, AuditConfig(latent_dim=12)))
    assert estimate is not None and estimate.low <= scale <= estimate.high
    assert estimate.high < 1.5 * estimate.low  # tanh of wide latents hardly grows
    assert estimate.value == pytest.approx(scale, rel=0.06) and "after 2 layers" in estimate.source


def test_no_scale_after_an_activation_of_normalized_latents() -> None:
    class Normalized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 2)
            )

        def forward(self, z: Tensor) -> Tensor:
            out: Tensor = self.net(z / z.norm(dim=1, keepdim=True))
            return out

    net = calibrated(Normalized(), lambda rng: torch.randn(64, 12, generator=rng), batches=80)
    assert estimate_trained_scale(wrap_module(net, AuditConfig(latent_dim=12))) is None


def test_a_uniform_prior_is_suggested_by_its_std(tmp_path: Path) -> None:
    file = save(make_network("transposed", 1.0, uniform=True).state_dict(), tmp_path)
    estimate = assert_scale(estimate_trained_scale(load_generator(file, AuditConfig(prior="normal"))), 3**-0.5)
    assert estimate.source.endswith("a uniform prior on [-1, 1] (--prior uniform, std 0.577) would explain it")
    # In units of the prior that it had, the scale is 1: by the flag, and by the statistics.
    assert_scale(estimate_trained_scale(load_generator(file, AuditConfig(prior="uniform"))), 1.0)
    network = load_generator(file)
    prior = find_assumption(network, "prior")
    assert (network.latent.prior, prior.value, prior.note, prior.source) == (
        "uniform",
        "uniform",
        "on [-1, 1]",
        "batch-norm",
    )
    assert_scale(estimate_trained_scale(network), 1.0)


class OneHotConditional(nn.Module):
    """z and one-hot labels concatenated inside the network."""

    def __init__(self, body: nn.Module, spatial: bool) -> None:
        super().__init__()
        self.body, self.spatial = body, spatial

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        x = torch.cat([z.flatten(1), nn.functional.one_hot(labels, 6).float()], 1)
        out: Tensor = self.body(x[:, :, None, None] if self.spatial else x)
        return out


@pytest.mark.parametrize("spatial", [True, False])
@pytest.mark.parametrize("scale", [0.1, 1.0])
@pytest.mark.parametrize("shares", [(1.0,) * 6, (3.0, 1.0, 1.0, 1.0, 1.0, 1.0)])
def test_the_variance_of_labels_is_subtracted(spatial: bool, scale: float, shares: tuple[float, ...]) -> None:
    body = DCGAN(18, 16, blocks=2).main if spatial else mlp((18, 64, 2), norm=True)
    net = shuffled(OneHotConditional(body, spatial), 2).train()
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _ in range(80):
            net(
                scale * torch.randn(64, 12, generator=rng),
                torch.multinomial(torch.tensor(shares), 64, replacement=True, generator=rng),
            )
    network = wrap_module(net.eval(), AuditConfig(latent_dim=12, classes=6, condition="index"))
    estimate = estimate_trained_scale(network)
    assert estimate is not None and "6 labels" in estimate.source
    # At scale 0.1 the labels carry 40 times the latents' variance, and their own sampling noise shows: 10 %.
    assert estimate.value == pytest.approx(scale, rel=0.1 if scale < 1 else TOLERANCE)


def test_closed_form_without_sampling_noise() -> None:
    """Statistics from the formula itself, with a bias and labels of unequal frequency: the estimate is exact."""
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(12, 40, 16, generator=rng, dtype=torch.float64)
    bias = torch.randn(40, generator=rng, dtype=torch.float64)
    z, labels, share = weight[:8], weight[8:], torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    spread = (share[:, None, None] * labels**2).sum(0).mean(1) - (share[:, None] * labels.mean(2)).sum(0) ** 2
    layer = FirstLayer(
        weight,
        bias,
        bias + (share[:, None] * labels.mean(2)).sum(0),
        0.3**2 * (z**2).sum(0).mean(1) + spread,
        list(range(8)),
        torch.eye(12, dtype=torch.float64)[8:],
    )
    std = estimate_latent_std(layer)
    assert std is not None and std.value == pytest.approx(0.3, rel=1e-9)


def test_labels_are_detected_only_where_they_are() -> None:
    rng = torch.Generator().manual_seed(1)
    noise = 0.03 * torch.randn(60, generator=rng, dtype=torch.float64)
    assert find_label_split(noise) is None
    for classes in (2, 5, 10):
        for first in (False, True):
            means = noise.clone()
            where = slice(0, classes) if first else slice(60 - classes, 60)
            # frequencies in 1,100 draws, like the latents' means of 0.03
            means[where] = 1 / classes + noise[where] / classes**0.5
            split = find_label_split(means)
            assert split is not None and (split.classes, split.labels_first) == (classes, first)
    for seed in range(40):  # no codes where there are none
        rng = torch.Generator().manual_seed(seed)
        means = 0.03 * torch.randn(40, generator=rng, dtype=torch.float64)
        assert find_label_split(means) is None
        means[30:] = 0.1 + 0.01 * torch.randn(10, generator=rng, dtype=torch.float64)
        assert find_label_split(means) in (LabelSplit(10, False), None)
    unequal = noise + torch.cat([torch.zeros(56), torch.tensor([0.85, 0.05, 0.05, 0.05])])
    assert find_label_split(unequal) is None  # --classes states them
    assert find_label_split(noise + 0.5) is None  # a prior on [0, 1] is not a label


@pytest.mark.parametrize(
    "make",
    [
        # no BatchNorm
        lambda: mlp((8, 32, 2)),
        # an activation before it
        lambda: nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.BatchNorm1d(32), nn.Linear(32, 2)),
        # never trained: the initial 0 and 1
        lambda: nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2)),
    ],
)
def test_no_scale_without_statistics(make: Any) -> None:
    assert estimate_trained_scale(wrap_module(shuffled(make()).eval())) is None


def test_no_scale_of_normalized_latents() -> None:
    class Normalized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp((8, 32, 32, 2), norm=True)

        def forward(self, z: Tensor) -> Tensor:
            out: Tensor = self.body(z / z.norm(dim=1, keepdim=True))
            return out

    net = calibrated(Normalized(), lambda rng: torch.randn(64, 8, generator=rng), batches=30)
    assert estimate_trained_scale(wrap_module(net)) is None


def test_the_initial_variance_is_removed_from_early_checkpoints() -> None:
    # After 10 batches 0.9^10 = 35 % of the stored variance is still the initial 1.
    net = calibrated(mlp((12, 64, 64, 2), norm=True), lambda rng: 0.1 * torch.randn(64, 12, generator=rng), batches=10)
    estimate = estimate_trained_scale(wrap_module(net))
    assert estimate is not None and estimate.value == pytest.approx(0.1, rel=0.06)


def test_the_mismatch_is_low_for_the_network_itself_and_high_after_a_change() -> None:
    for scale in (0.02, 1.0):
        net = make_network("transposed", scale, batches=200)  # 0.9^200: nothing remains of the initial variance of 1
        right = statistics_mismatch(wrap_module(net))
        assert right is not None and right < 0.15
        with torch.no_grad():
            for name, entry in net.named_parameters():
                if name == "main.3.weight":
                    entry *= 2  # four times the variance in every channel: log 4 = 1.39 in one of two BatchNorm layers
        wrong = statistics_mismatch(wrap_module(net))
        assert wrong is not None and wrong > right + 0.5
    assert statistics_mismatch(wrap_module(shuffled(mlp((8, 16, 2))))) is None


def test_plain_averages_keep_nothing_of_the_initial_variance() -> None:
    """Momentum None, as for re-estimated statistics; an exponential average keeps 0.9^20 = 12 % of its initial 1."""
    net = mlp((12, 64, 64, 2), norm=True)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.momentum = None
    calibrated(net, lambda rng: 0.1 * torch.randn(256, 12, generator=rng), batches=20)
    estimate = estimate_trained_scale(wrap_module(net))
    assert estimate is not None and estimate.value == pytest.approx(0.1, rel=TOLERANCE)


@pytest.mark.parametrize("scale", [0.02, 0.1, 3.0])
@pytest.mark.parametrize("name", ["relu", "leaky:0.2"])
def test_hyperparameters_are_inferred_at_the_training_scale(tmp_path: Path, name: str, scale: float) -> None:
    """No prior at its own scale explains the first BatchNorm: every candidate is tried at its best scale."""
    act = nn.ReLU if name == "relu" else lambda: nn.LeakyReLU(0.2)
    net = nn.Sequential(
        nn.Linear(12, 64),
        act(),
        nn.Linear(64, 96),
        nn.BatchNorm1d(96, 0.8),
        act(),
        nn.Linear(96, 128),
        nn.BatchNorm1d(128, 0.8),
        act(),
        nn.Linear(128, 256),
        nn.Tanh(),
    )
    calibrated(net, lambda rng: scale * torch.randn(64, 12, generator=rng), batches=150)
    network = load_generator(save(net.state_dict(), tmp_path))
    assert find_assumption(network, "activation").value == name
    assert find_assumption(network, "bn_eps").value == 0.8
    prior = find_assumption(network, "prior")
    assert (network.latent.prior, prior.source) == ("normal", "default")
    assert prior.note.startswith("latent std ") and "in training" in prior.note
    estimate = estimate_trained_scale(network)
    assert estimate is not None and estimate.low <= scale <= estimate.high
    assert (statistics_mismatch(network) or 9) < 0.2


def test_networks_without_a_usable_batchnorm_are_not_run_at_many_scales() -> None:
    """Twenty-five passes of a whole network take seconds, or hours."""
    n_samples = 0

    class CountingNet(nn.Module):
        def __init__(self, *parts: nn.Module) -> None:
            super().__init__()
            self.net = nn.Sequential(*parts)

        def forward(self, z: Tensor) -> Tensor:
            nonlocal n_samples
            n_samples += len(z)
            out: Tensor = self.net(z)
            return out

    after_convolution = [nn.Linear(4, 16), nn.ReLU(), nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)]
    for parts in ([nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)], after_convolution):
        network = wrap_module(CountingNet(*parts), AuditConfig(latent_dim=4))
        n_samples = 0
        assert estimate_trained_scale(network) is None and n_samples <= 80
