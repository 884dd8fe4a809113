"""The scale of the latents in training, read back from batch-norm statistics that the test itself made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_generators import DCGAN, calibrated, mlp, save, shuffled

from gandiag.checkpoints.batchnorm.first_layer import FirstLayer, LabelSplit, estimate_latent_std, find_label_split
from gandiag.checkpoints.batchnorm.latent_scale import TrainedScale, estimate_trained_scale
from gandiag.checkpoints.loader import load_generator, wrap_module
from gandiag.config import AuditConfig
from gandiag.probes.batchnorm_mismatch import statistics_mismatch

# 19 batches of 64 stand behind an exponential average: with D latents the variance is known to sqrt(2 / (19 * 64 * D)),
# which is 1.2 % at D = 12, and the deviation to half of that. 4 % is more than six deviations.
TOLERANCE = 0.04


def check(found: TrainedScale | None, truth: float) -> TrainedScale:
    assert found is not None
    assert found.value == pytest.approx(truth, rel=TOLERANCE)
    assert found.low <= found.value <= found.high
    # the interval holds the truth, with the slack of one more half-width: 95 % intervals miss now and then
    slack = (found.high - found.low) / 2
    assert found.low - slack <= truth <= found.high + slack
    assert found.high - found.low < 0.2 * truth
    return found


def network(kind: str, scale: float, *, uniform: bool = False, batches: int = 80) -> nn.Module:
    def draw(rng: torch.Generator) -> Tensor:
        z = 2 * torch.rand(64, 12, generator=rng) - 1 if uniform else torch.randn(64, 12, generator=rng)
        return scale * z

    made: dict[str, Callable[[], nn.Module]] = {
        "transposed": lambda: DCGAN(12, 8, blocks=2),
        "biased": lambda: DCGAN(12, 8, blocks=2, bias=True),
        "mlp": lambda: mlp((12, 64, 64, 2), norm=True),
    }
    return calibrated(made[kind](), draw, batches=batches)


@pytest.mark.parametrize("kind", ["transposed", "biased", "mlp"])
@pytest.mark.parametrize("scale", [0.02, 1.0, 3.0])
def test_the_scale_of_training_is_read_back(tmp_path: Path, kind: str, scale: float) -> None:
    found = check(estimate_trained_scale(load_generator(save(network(kind, scale).state_dict(), tmp_path))), scale)
    assert "batch-norm variance behind the first layer" in found.source and "prior on" not in found.source


@pytest.mark.parametrize("scale", [0.02, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh, lambda: nn.LeakyReLU(0.2)])
def test_the_scale_is_read_behind_an_activation(scale: float, act: Callable[[], nn.Module]) -> None:
    """As in PyTorch-GAN, whose first layers have no norm."""
    net = nn.Sequential(nn.Linear(12, 48), act(), nn.Linear(48, 64), nn.BatchNorm1d(64, 0.8), act(), nn.Linear(64, 2))
    made = wrap_module(
        calibrated(net, lambda rng: scale * torch.randn(64, 12, generator=rng), batches=80), AuditConfig(latent_dim=12)
    )
    found = estimate_trained_scale(made)
    assert (
        found is not None and found.low <= scale <= found.high and found.high < 1.5 * found.low
    )  # tanh of wide latents hardly grows
    assert found.value == pytest.approx(scale, rel=0.06) and "behind 2 layers" in found.source


def test_no_scale_is_read_where_the_latents_are_normalised() -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 2)
            )

        def forward(self, z: Tensor) -> Tensor:
            made: Tensor = self.net(z / z.norm(dim=1, keepdim=True))
            return made

    net = calibrated(Normalised(), lambda rng: torch.randn(64, 12, generator=rng), batches=80)
    assert estimate_trained_scale(wrap_module(net, AuditConfig(latent_dim=12))) is None


def test_a_uniform_prior_shows_its_deviation_and_is_named(tmp_path: Path) -> None:
    file = save(network("transposed", 1.0, uniform=True).state_dict(), tmp_path)
    found = check(estimate_trained_scale(load_generator(file, AuditConfig(prior="normal"))), 3**-0.5)
    assert found.source.endswith("a uniform prior on [-1, 1] (--prior uniform, deviation 0.577) would explain it")
    # In units of the prior that it had, the scale is 1: where a flag says so, and where the statistics do.
    check(estimate_trained_scale(load_generator(file, AuditConfig(prior="uniform"))), 1.0)
    loaded = load_generator(file)
    assert (
        loaded.latent.prior == "uniform"
        and {entry.what: entry.source for entry in loaded.assumptions}["latent prior (--prior)"] == "batch-norm"
    )
    check(estimate_trained_scale(loaded), 1.0)


class Joined(nn.Module):
    """z and one-hot labels joined inside the network."""

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
def test_the_labels_share_is_taken_off(spatial: bool, scale: float, shares: tuple[float, ...]) -> None:
    net = shuffled(Joined(DCGAN(18, 16, blocks=2).main if spatial else mlp((18, 64, 2), norm=True), spatial), 2).train()
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _ in range(80):
            net(
                scale * torch.randn(64, 12, generator=rng),
                torch.multinomial(torch.tensor(shares), 64, replacement=True, generator=rng),
            )
    seen = wrap_module(net.eval(), AuditConfig(latent_dim=12, classes=6, condition="index"))
    found = estimate_trained_scale(seen)
    assert found is not None and "6 labels" in found.source
    # At scale 0.1 the labels carry 40 times the latents' variance, and their own sampling noise shows: 10 %.
    assert found.value == pytest.approx(scale, rel=0.1 if scale < 1 else TOLERANCE)


def test_closed_form_without_sampling_noise() -> None:
    """Statistics from the formula itself: exact, biased or not, with labels of unequal shares or not."""
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
    found = estimate_latent_std(layer)
    assert found is not None and found.value == pytest.approx(0.3, rel=1e-9)


def test_labels_are_seen_only_where_they_are() -> None:
    rng = torch.Generator().manual_seed(1)
    noise = 0.03 * torch.randn(60, generator=rng, dtype=torch.float64)
    assert find_label_split(noise) is None
    for classes in (2, 5, 10):
        for first in (False, True):
            means = noise.clone()
            where = slice(0, classes) if first else slice(60 - classes, 60)
            means[where] = (
                1 / classes + noise[where] / classes**0.5
            )  # shares of 1,100 draws, like the latents' means of 0.03
            split = find_label_split(means)
            assert split is not None and (split.classes, split.labels_first) == (classes, first)
    for seed in range(40):  # no codes where there are none
        rng = torch.Generator().manual_seed(seed)
        means = 0.03 * torch.randn(40, generator=rng, dtype=torch.float64)
        assert find_label_split(means) is None
        means[30:] = 0.1 + 0.01 * torch.randn(10, generator=rng, dtype=torch.float64)
        assert find_label_split(means) in (LabelSplit(10, False), None)
    unequal = noise + torch.cat([torch.zeros(56), torch.tensor([0.85, 0.05, 0.05, 0.05])])
    assert find_label_split(unequal) is None  # left to the flags
    assert find_label_split(noise + 0.5) is None  # a prior on [0, 1] is no label


@pytest.mark.parametrize(
    "make",
    [
        lambda: mlp((8, 32, 2)),  # no batch norm
        lambda: nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.BatchNorm1d(32), nn.Linear(32, 2)),  # not directly behind
        lambda: nn.Sequential(
            nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2)
        ),  # never trained: the initial 0 and 1
    ],
)
def test_none_where_nothing_is_known(make: Any) -> None:
    assert estimate_trained_scale(wrap_module(shuffled(make()).eval())) is None


def test_none_for_a_network_that_normalises_its_latents() -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp((8, 32, 32, 2), norm=True)

        def forward(self, z: Tensor) -> Tensor:
            out: Tensor = self.body(z / z.norm(dim=1, keepdim=True))
            return out

    net = calibrated(Normalised(), lambda rng: torch.randn(64, 8, generator=rng), batches=30)
    assert estimate_trained_scale(wrap_module(net)) is None


def test_early_checkpoints_are_freed_of_their_start() -> None:
    # After 10 batches 0.9^10 = 35 % of the stored variance is still the initial 1.
    net = calibrated(mlp((12, 64, 64, 2), norm=True), lambda rng: 0.1 * torch.randn(64, 12, generator=rng), batches=10)
    found = estimate_trained_scale(wrap_module(net))
    assert found is not None and found.value == pytest.approx(0.1, rel=0.06)


def test_the_mismatch_is_low_for_the_network_itself_and_high_for_another() -> None:
    for scale in (0.02, 1.0):
        net = network("transposed", scale, batches=200)  # 0.9^200: nothing is left of the initial variance of 1
        right = statistics_mismatch(wrap_module(net))
        assert right is not None and right < 0.15
        with torch.no_grad():
            for name, entry in net.named_parameters():
                if name == "main.3.weight":
                    entry *= 2  # every channel behind gets four times its variance: log 4 = 1.39 in one of two norms
        wrong = statistics_mismatch(wrap_module(net))
        assert wrong is not None and wrong > right + 0.5
    assert statistics_mismatch(wrap_module(shuffled(mlp((8, 16, 2))))) is None


def test_plain_averages_keep_nothing_of_the_start() -> None:
    """momentum None, as re-estimated statistics have: after 20 batches an exponential average would keep 0.9^20 = 12 % of its 1."""
    net = mlp((12, 64, 64, 2), norm=True)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.momentum = None
    calibrated(net, lambda rng: 0.1 * torch.randn(256, 12, generator=rng), batches=20)
    found = estimate_trained_scale(wrap_module(net))
    assert found is not None and found.value == pytest.approx(0.1, rel=TOLERANCE)


@pytest.mark.parametrize("scale", [0.02, 0.1, 3.0])
@pytest.mark.parametrize("name", ["relu", "leaky:0.2"])
def test_a_file_is_read_at_the_scale_of_its_training(tmp_path: Path, name: str, scale: float) -> None:
    """No prior at its own scale explains its first norm, which an activation keeps from showing the scale: all readings are tried at theirs."""
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
    made = load_generator(
        save(
            calibrated(net, lambda rng: scale * torch.randn(64, 12, generator=rng), batches=150).state_dict(), tmp_path
        )
    )
    told = {entry.what.split(" (")[0]: entry for entry in made.assumptions}
    assert told["hidden activation"].value.startswith(f"{name} ") and told["batch-norm eps"].value.startswith("0.8 "), (
        told
    )
    assert made.latent.prior == "normal" and "its latents had deviation" in told["latent prior"].value
    found = estimate_trained_scale(made)
    assert found is not None and found.low <= scale <= found.high
    assert (statistics_mismatch(made) or 9) < 0.2


def test_networks_without_a_norm_that_could_tell_are_not_run_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty-five passes of a whole network are seconds, or hours."""
    passes = 0

    class Counted(nn.Module):
        def __init__(self, *parts: nn.Module) -> None:
            super().__init__()
            self.net = nn.Sequential(*parts)

        def forward(self, z: Tensor) -> Tensor:
            nonlocal passes
            passes += len(z)
            made: Tensor = self.net(z)
            return made

    for parts in (
        [nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)],  # none at all
        [nn.Linear(4, 16), nn.ReLU(), nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)],
    ):  # behind a convolution
        made = wrap_module(Counted(*parts), AuditConfig(latent_dim=4))
        passes = 0
        assert estimate_trained_scale(made) is None and passes <= 80
