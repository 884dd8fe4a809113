"""What batch norm's statistics settle on small generators: activation, eps, dropout; and what they leave open, said with both numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from toy_generators import DCGAN, calibrated, mlp, normal, save

from gandiag.checkpoints.architectures.mlp import rebuild as rebuild_mlp
from gandiag.checkpoints.batchnorm.latent_scale import estimate_trained_scale
from gandiag.checkpoints.batchnorm.moments import channel_moments, enable_dropout
from gandiag.checkpoints.batchnorm.sequential import forward_layer
from gandiag.checkpoints.inference import candidate_scorer, selection
from gandiag.checkpoints.inference.candidate_scorer import Assignment, CandidateScorer
from gandiag.checkpoints.inference.conv_geometry import COMMON_STRIDES, enumerate_strides, transposed_conv_size
from gandiag.checkpoints.inference.hyperparameters import Hyperparameter
from gandiag.checkpoints.inference.search import CandidateScores
from gandiag.checkpoints.inference.selection import select_candidate
from gandiag.checkpoints.inference.sequential import (
    DepthToSpace,
    build_sequential_generator,
    format_module_strides,
    set_hyperparameters,
)
from gandiag.checkpoints.loader import load_generator
from gandiag.checkpoints.state_dict import find_generator_weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.probes.batchnorm_mismatch import statistics_mismatch

ACTS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "leaky:0.2": lambda: nn.LeakyReLU(0.2)}


class Dropped(DCGAN):
    """Dropout behind every activation, as in the networks that copy pix2pix."""

    def __init__(self, p: float) -> None:
        super().__init__(ngf=12)
        parts: list[nn.Module] = []
        for part in self.main:
            parts += [part, nn.Dropout(p)] if isinstance(part, nn.ReLU) else [part]
        self.main = nn.Sequential(*parts)


def test_the_true_hypothesis_wins_on_nine_of_ten(tmp_path: Path) -> None:
    right = 0
    for seed in range(10):
        act, eps = ("relu", "leaky:0.2")[seed % 2], (1e-5, 0.8)[seed // 2 % 2]
        net = (
            calibrated(DCGAN(act=ACTS[act], ngf=8 + seed), normal(12), seed=seed)
            if seed < 5
            else calibrated(
                mlp((12, 48, 48, 48, 3072), norm=True, act=ACTS[act], final=nn.Tanh(), eps=eps), normal(12), seed=seed
            )
        )
        told = {
            entry.what.split(" (")[0]: entry.value.split(" ")[0]
            for entry in load_generator(save(net.state_dict(), tmp_path)).assumptions
        }
        right += told["hidden activation"] == act and float(told["batch-norm eps"]) == (1e-5 if seed < 5 else eps)
    assert right >= 9


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_dropout_in_training_is_recognised(tmp_path: Path, p: float) -> None:
    net = calibrated(Dropped(p), normal(12), batches=200)
    network = load_generator(save(net.state_dict(), tmp_path))
    entry = next(entry for entry in network.assumptions if entry.what.startswith("dropout"))
    assert float(entry.value.split(" ")[0]) == p, entry
    z = torch.randn(4, 12, 1, 1)
    with torch.no_grad():
        assert torch.equal(network.forward(z), net.eval()(z))  # none in use
    assert (statistics_mismatch(network) or 9) < 0.15


def test_dropping_puts_everything_back() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).eval()
    before = torch.random.get_rng_state()
    with enable_dropout(net):
        assert net[1].training and not net.training
    assert not net[1].training and torch.equal(before, torch.random.get_rng_state())


def test_below_a_margin_of_two_strict_asks(tmp_path: Path) -> None:
    file = save(calibrated(mlp((8, 32, 2), norm=True), normal(8)).state_dict(), tmp_path)
    with pytest.raises(LoadError) as caught:
        load_generator(file, AuditConfig(strict=True))
    assert "--activation" in caught.value.hint


def test_strides_that_nobody_told_are_found_behind_every_norm(tmp_path: Path) -> None:
    """1 -> 3 -> 6 -> 13 -> 28, a much-taught generator for digits, where custom would say 3 -> 6 -> 12 -> 24."""
    layers: list[nn.Module] = []
    for into, out, kernel, stride in ((12, 32, 3, 1), (32, 24, 4, 1), (24, 16, 3, 2)):
        layers += [nn.ConvTranspose2d(into, out, kernel, stride), nn.BatchNorm2d(out), nn.ReLU()]
    net = nn.Sequential(*layers, nn.ConvTranspose2d(16, 1, 4, 2), nn.Tanh())
    draw = normal(12)
    network = load_generator(save(calibrated(net, lambda rng: draw(rng)[:, :, None, None]).state_dict(), tmp_path))
    told = [
        entry.value.split(" (")[0] for entry in network.assumptions if entry.what.startswith("stride and padding of")
    ]
    assert told == ["4x4 with stride 1, padding 0", "3x3 with stride 2, padding 0"] and network.output.shape == (
        1,
        28,
        28,
    )


def test_an_activation_and_an_eps_that_hide_each_other_are_found_together(tmp_path: Path) -> None:
    """With relu any eps fits poorly, and with an eps of 1e-5 any activation: neither is found while the other stands."""
    net = calibrated(mlp((12, 48, 48, 48, 2), norm=True, act=nn.ELU, eps=0.8), normal(12))
    told = {entry.what.split(" (")[0]: entry for entry in load_generator(save(net.state_dict(), tmp_path)).assumptions}
    assert told["hidden activation"].value.startswith("elu ") and told["batch-norm eps"].value.startswith("0.8 ")
    assert told["hidden activation"].source == told["batch-norm eps"].source == "batch-norm"


@pytest.mark.parametrize("spatial", [True, False])
def test_latents_on_the_unit_interval_are_recognised(tmp_path: Path, spatial: bool) -> None:
    """Their mean is not zero: positions of one channel then differ in their mean, which the variance behind the first layer contains."""
    net = DCGAN() if spatial else mlp((12, 48, 48, 2), norm=True)
    network = load_generator(
        save(calibrated(net, lambda rng: torch.rand(64, 12, generator=rng)).state_dict(), tmp_path)
    )
    assert network.latent.prior == "unit" and (statistics_mismatch(network) or 9) < 0.15
    found = estimate_trained_scale(network)
    assert found is not None and found.low <= 1 <= found.high and found.high / found.low < 1.3


class Shuffled(nn.Module):
    """Convolutions that make four channels for every one that the next layer takes. `order`: how pixels lie in them."""

    def __init__(self, order: nn.Module) -> None:
        super().__init__()
        self.first, self.norm0 = nn.Linear(12, 16 * 16), nn.BatchNorm2d(16)
        self.conv1, self.norm1 = nn.Conv2d(16, 64, 3, padding=1), nn.BatchNorm2d(16)
        self.conv2, self.norm2 = nn.Conv2d(16, 48, 3, padding=1), nn.BatchNorm2d(48)  # a norm in front of the shuffle
        self.last = nn.Conv2d(12, 3, 3, padding=1)
        self.order = order

    def forward(self, z: Tensor) -> Tensor:
        x = self.norm0(self.first(z).reshape(-1, 16, 4, 4)).relu()
        x = self.norm1(self.order(self.conv1(x))).relu()
        return self.last(self.order(self.norm2(self.conv2(x)).relu())).tanh()


@pytest.mark.parametrize("order", [nn.PixelShuffle(2), DepthToSpace()])
def test_the_order_of_shuffled_pixels_is_told_by_the_statistics(tmp_path: Path, order: nn.Module) -> None:
    net = calibrated(Shuffled(order), normal(12))
    network = load_generator(save(net.state_dict(), tmp_path))
    entry = next(entry for entry in network.assumptions if entry.what.startswith("order of shuffled pixels"))
    assert entry.source == "batch-norm" and entry.value.startswith(
        "pixel-shuffle" if isinstance(order, nn.PixelShuffle) else "depth-to-space"
    )
    z = torch.randn(4, 12)
    with torch.no_grad():
        assert torch.allclose(network.forward(z), net(z), atol=1e-6)


def test_depth_to_space_takes_whole_blocks_of_channels() -> None:
    """Block 2 i + j of C channels is the pixel (i, j) of every doubled place."""
    x = torch.arange(2 * 12 * 2 * 3).reshape(2, 12, 2, 3).float()
    made = DepthToSpace()(x)
    for i, j in itertools.product(range(2), repeat=2):
        assert torch.equal(made[:, :, i::2, j::2], x[:, 3 * (2 * i + j) : 3 * (2 * i + j) + 3])


@pytest.mark.parametrize(
    "fits, others, best",
    [
        (0.1, 0.09, 0),
        (0.1, 0.081, 0),
        (0.1, 0.079, 1),
        (0.1, 0.04, 1),  # well, and noticeably better from 1.25
        (0.4, 0.3, 0),
        (0.4, 0.21, 0),
        (0.4, 0.19, 1),
    ],
)  # nothing is right here: twice as well
def test_custom_stands_until_another_answer_fits_noticeably_better(fits: float, others: float, best: int) -> None:
    reading = Assignment("relu", 1e-5, 0.0, "normal", 1.0, (0,))
    asked = Hyperparameter("stride", (0, 1), 0, 1, 1, prefer_default=True)
    assert select_candidate(asked, {0: (fits, reading), 1: (others, replace(reading, choices=(1,)))}) == best


def test_a_retuned_network_is_the_one_that_would_be_built() -> None:
    weights = find_generator_weights(calibrated(mlp((8, 32, 32, 2), norm=True), normal(8)).state_dict(), name="g.pt")
    blueprint = rebuild_mlp(weights, AuditConfig())
    chain = build_sequential_generator(blueprint, "relu", 1e-5)
    z = torch.randn(4, 8)
    for activation, eps in (("elu", 0.8), ("leaky:0.2", 1e-5)):
        assert torch.equal(
            set_hyperparameters(chain, blueprint, activation, eps, 0.0)(z),
            build_sequential_generator(blueprint, activation, eps)(z),
        )


@pytest.mark.parametrize("limit, value", [("_INSPECT_BUDGET", 1e8), ("_MAX_INSPECT_PARAMETERS", 1e3)])
def test_a_glance_does_not_rank_what_takes_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    """Of a network that is too large, and of one that turns out to take long, custom is told, and that an audit asks."""
    file = save(calibrated(DCGAN(), normal(12), batches=5).state_dict(), tmp_path)
    for hurried in (False, True):
        if hurried:
            monkeypatch.setattr(selection, limit, value)
        entry = next(
            entry
            for entry in load_generator(file, inspect_only=True).assumptions
            if entry.what.startswith("hidden activation")
        )
        assert (entry.source, "an audit asks" in entry.value) == (
            ("default", True) if hurried else ("batch-norm", False)
        )
    assert "an audit asks" not in str(load_generator(file).assumptions)


def stacked(kernels: list[tuple[int, int, int, int]], *, side: int = 1) -> nn.Sequential:
    """Transposed convolutions (kernel, stride, padding, output padding), batch norm and ReLU between them; a linear layer where `side` is not 1."""
    layers: list[nn.Module] = []
    into = 12
    if side > 1:
        layers, into = (
            [nn.Linear(12, 32 * side**2), nn.BatchNorm1d(32 * side**2), nn.ReLU(), nn.Unflatten(1, (32, side, side))],
            32,
        )
    for index, (kernel, stride, padding, extra) in enumerate(kernels):
        out = 3 if index == len(kernels) - 1 else 24 - 4 * index
        layers += [
            nn.ConvTranspose2d(into, out, kernel, stride, padding, extra),
            *([nn.BatchNorm2d(out), nn.ReLU()] if out > 3 else [nn.Tanh()]),
        ]
        into = out
    return nn.Sequential(*layers)


def test_a_size_that_is_given_is_reached_by_the_strides_that_fit(tmp_path: Path) -> None:
    """4 -> 6 -> 11 -> 24 -> 48: with 48 given, no stride can be another alone, so all are one question."""
    net = stacked([(4, 1, 0, 0), (3, 1, 0, 0), (3, 2, 1, 0), (4, 2, 0, 0), (4, 2, 1, 0)])
    draw = normal(12)
    file = save(calibrated(net, lambda rng: draw(rng)[:, :, None, None]).state_dict(), tmp_path)
    network = load_generator(file, AuditConfig(image_size=48))
    entry = next(
        entry for entry in network.assumptions if entry.what == "strides and paddings (--image-size or --strides)"
    )
    assert entry.value.startswith(
        "3x3 with stride 1, padding 0; then 3x3 with stride 2, padding 1; then 4x4 with stride 2, padding 0 ("
    )
    assert entry.source == "flag"
    z = torch.randn(4, 12, 1, 1)
    with torch.no_grad():
        assert torch.allclose(network.forward(z), net(z), atol=1e-6)


def test_ways_all_lead_to_the_size_and_the_customary_one_is_first() -> None:
    options = [COMMON_STRIDES[3], COMMON_STRIDES[3], COMMON_STRIDES[4]]
    found = enumerate_strides(4, [3, 3, 4, 4], 48, options)
    for path in found:
        sides = [4]
        for kernel, geometry in zip([3, 3, 4], path, strict=True):
            sides.append(transposed_conv_size(sides[-1], kernel, geometry))
        assert 48 in {transposed_conv_size(sides[-1], 4, geometry) for geometry in COMMON_STRIDES[4]}, path
    assert len(set(found)) == len(found) > 3
    costs = [sum(given.index(one) for given, one in zip(options, path, strict=True)) for path in found]
    assert costs == sorted(costs)


def test_odd_transposed_kernels_behind_a_reshape_are_no_convolutions(tmp_path: Path) -> None:
    """32 x 4 x 4 values are no square picture of the 24 channels that the first kernel makes; its last kernel rises as the others do."""
    net = stacked([(3, 2, 1, 1), (3, 2, 1, 1), (3, 2, 1, 1)], side=4)
    network = load_generator(save(calibrated(net, normal(12)).state_dict(), tmp_path))
    assert network.output.shape == (3, 32, 32)
    z = torch.randn(4, 12)
    with torch.no_grad():
        assert torch.allclose(network.forward(z), net(z), atol=1e-6)


@pytest.mark.parametrize("kernel, bias", [(3, True), (3, False), (4, True), (4, False)])
def test_transposed_kernels_that_quarter_the_channels_shuffle_no_pixels(
    tmp_path: Path, kernel: int, bias: bool
) -> None:
    """ConvTranspose2d(4 c, c) has the shape of a Conv2d that makes 4 c channels."""
    padding = (1, 1) if kernel == 3 else (1, 0)
    net = nn.Sequential(
        nn.Linear(12, 64 * 16),
        nn.BatchNorm1d(64 * 16),
        nn.ReLU(),
        nn.Unflatten(1, (64, 4, 4)),
        nn.ConvTranspose2d(64, 16, kernel, 2, *padding, bias=bias),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 4, kernel, 2, *padding, bias=bias),
        nn.Tanh(),
    )
    network = load_generator(save(calibrated(net, normal(12)).state_dict(), tmp_path))
    assert network.output.shape == (4, 16, 16) and not any("shuffled" in entry.what for entry in network.assumptions)
    z = torch.randn(4, 12)
    with torch.no_grad():
        assert torch.allclose(network.forward(z), net(z), atol=1e-6)


def test_a_flag_tells_the_order_of_shuffled_pixels_and_a_spec_replays_it(tmp_path: Path) -> None:
    net = calibrated(Shuffled(DepthToSpace()), normal(12))
    file, spec = save(net.state_dict(), tmp_path), str(tmp_path / "spec.json")
    z = torch.randn(4, 12)
    load_generator(file, AuditConfig(spec=spec))
    for config in (AuditConfig(upsampling="depth-to-space"), AuditConfig(spec=spec)):
        network = load_generator(file, config)
        entry = next(entry for entry in network.assumptions if entry.what.startswith("order of shuffled pixels"))
        assert entry.value.startswith("depth-to-space")
        with torch.no_grad():
            assert torch.allclose(network.forward(z), net(z), atol=1e-6)
    with pytest.raises(LoadError, match="--upsampling nearest contradicts the weights, which shuffle pixels"):
        load_generator(file, AuditConfig(upsampling="nearest"))


def test_strides_that_are_given_are_no_question(tmp_path: Path) -> None:
    """Nobody would guess a stride of 5; one that is told needs no statistics, and its mistakes are named."""
    net = stacked([(4, 1, 0, 0), (8, 5, 1, 0), (5, 3, 1, 0)])
    draw = normal(12)
    file = save(calibrated(net, lambda rng: draw(rng)[:, :, None, None]).state_dict(), tmp_path)
    with pytest.raises(LoadError, match="kernels of size 8, 5 have no customary stride; --strides"):
        load_generator(file)
    network = load_generator(file, AuditConfig(strides=("5/1", "3/1")))
    entry = next(entry for entry in network.assumptions if "--strides" in entry.what)
    assert (entry.value, entry.source) == ("8x8 with stride 5, padding 1; then 5x5 with stride 3, padding 1", "flag")
    z = torch.randn(4, 12, 1, 1)
    with torch.no_grad():
        assert torch.allclose(network.forward(z), net(z), atol=1e-6)
    for given, size, said in [
        (("5/1",), None, r"gives 1, and the layers with a stride are 2: 3\.weight, 6\.weight"),
        (("5/1", "3"), None, "--strides is 5/1,3"),
        (("5/1", "1/1/1"), None, "--strides is"),
        (("5/1", "1/60"), None, r"3\.weight|6\.weight, 5x5 with stride 1, padding 60, makes"),
        (("5/1", "3/1"), 64, "--strides leads to 63 pixels, and --image-size is 64"),
    ]:
        with pytest.raises(LoadError, match=said):
            load_generator(file, AuditConfig(strides=given, image_size=size))
    with pytest.raises(LoadError, match="no transposed convolutions whose strides are open"):
        load_generator(save(mlp((8, 32, 2)).state_dict(), tmp_path, "mlp.pth"), AuditConfig(strides=("2/1",)))


def test_a_last_layer_of_stride_three_is_reached_by_its_size(tmp_path: Path) -> None:
    """A taught generator of 96 pixels: 1 -> 4 -> 8, and then 5x5 with stride 3 and padding 1, which no norm sees."""
    net = stacked([(4, 1, 0, 0), (4, 2, 1, 0), (5, 3, 1, 0)])
    draw = normal(12)
    file = save(calibrated(net, lambda rng: draw(rng)[:, :, None, None]).state_dict(), tmp_path)
    network = load_generator(file, AuditConfig(image_size=24))
    assert format_module_strides(network.module) == ("2/1", "3/1") and network.output.shape == (3, 24, 24)


@pytest.mark.parametrize("slow", [1, 2])
def test_a_kernel_does_as_the_last_one_of_its_size(tmp_path: Path, slow: int) -> None:
    """k3s2 doublings and then k3s1: the last layer, which no norm sees, keeps the side as the one before it."""
    net = stacked([(4, 1, 0, 0), *[(3, 2, 1, 1)] * 2, *[(3, 1, 1, 0)] * slow])
    draw = normal(12)
    network = load_generator(save(calibrated(net, lambda rng: draw(rng)[:, :, None, None]).state_dict(), tmp_path))
    told = next(
        entry.value for entry in network.assumptions if entry.what.startswith("strides and paddings of the last layers")
    )
    assert told == ("3x3 with stride 2, padding 1, output padding 1" if slow == 1 else "3x3 with stride 1, padding 1")
    assert network.output.shape[-1] == (32 if slow == 1 else 16)


def test_a_size_that_no_kernel_leads_to_is_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.ConvTranspose2d(12, 8, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
    draw = normal(12)
    file = save(calibrated(net, lambda rng: draw(rng)[:, :, None, None]).state_dict(), tmp_path)
    assert load_generator(file, AuditConfig(image_size=4)).output.shape == (3, 4, 4)
    with pytest.raises(LoadError, match="--image-size 64 contradicts the weights"):
        load_generator(file, AuditConfig(image_size=64))


@pytest.mark.parametrize("reshape", [True, False])
def test_a_numbered_reshape_is_no_activation(tmp_path: Path, reshape: bool) -> None:
    """Linear, Unflatten, norm: one module between the weights, as in Linear, activation, norm of a network that reshapes elsewhere."""
    layers = [
        nn.Linear(12, 32 * 16),
        nn.Unflatten(1, (32, 4, 4)),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 4, 2, 1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 3, 4, 2, 1),
        nn.Tanh(),
    ]
    net: nn.Module = (
        nn.Sequential(*layers) if reshape else InTwo(nn.Sequential(layers[0], nn.ReLU()), nn.Sequential(*layers[2:]))
    )
    network = load_generator(save(calibrated(net, normal(12)).state_dict(), tmp_path))
    z = torch.randn(4, 12)
    with torch.no_grad():
        assert torch.allclose(network.forward(z), net(z), atol=1e-6)


class InTwo(nn.Module):
    """A network that reshapes in its `forward`."""

    def __init__(self, flat: nn.Module, spatial: nn.Module, side: int = 4) -> None:
        super().__init__()
        self.flat, self.spatial, self.side = flat, spatial, side

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.spatial(self.flat(z).reshape(len(z), -1, self.side, self.side))
        return out


def test_where_custom_stands_the_rest_is_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the stride that fits a little better another activation fits than beside custom: what is named is one reading that was tried."""

    def fits(reading: Assignment) -> float:
        return {("relu", 0): 0.30, ("elu", 0): 0.40, ("relu", 1): 0.60, ("elu", 1): 0.25}[
            reading.activation, reading.choices[0]
        ]

    stride = Hyperparameter("stride", (0, 1), 0, 0, 0, prefer_default=True)
    activation = Hyperparameter("hidden activation", ("relu", "elu"), "activation", 0, 0)

    def searching(
        trial: object, asked: list[Hyperparameter], reading: Assignment
    ) -> tuple[Assignment, dict[str, CandidateScores]]:
        every = [stride.assign(activation.assign(reading, act), way) for act in ("relu", "elu") for way in (0, 1)]
        free = [one for one in every if stride in asked or one.choices == reading.choices]
        best = min(free, key=fits)
        return best, {
            question.setting: {
                answer: min(
                    ((fits(one), one) for one in free if question.value_of(one) == answer), key=lambda found: found[0]
                )
                for answer in question.candidates
            }
            for question in asked
        }

    monkeypatch.setattr(selection, "beam_search", searching)
    found, scores = selection._search_with_defaults(
        cast(CandidateScorer, None), [stride, activation], Assignment("relu", 1e-5, 0.0, "normal", 1.0, (0,))
    )
    assert (found.activation, found.choices) == ("relu", (0,))
    assert scores["hidden activation"]["relu"][0] == 0.30


def test_readings_with_larger_pictures_have_fewer_latents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By custom every k3 keeps the side of 4; that each doubles it is tried as well, and must not take a thousand times the memory."""
    largest = 0

    def watched(layer: nn.Module, x: Tensor, batch: bool) -> Tensor:
        nonlocal largest
        made = forward_layer(layer, x, batch)
        largest = max(largest, made.numel())
        return made

    monkeypatch.setattr(candidate_scorer, "forward_layer", watched)
    net = stacked([(4, 1, 0, 0), *[(3, 2, 1, 1)] * 3, *[(3, 1, 1, 0)] * 2])
    draw = normal(12)
    network = load_generator(
        save(calibrated(net, lambda rng: draw(rng)[:, :, None, None], batches=30).state_dict(), tmp_path)
    )
    assert network.output.shape == (3, 32, 32) and 0 < largest <= 4e6


@pytest.mark.parametrize("shape", [(64, 5), (40, 5, 7, 3), (40, 5, 9)])
def test_moments_survive_a_mean_far_from_zero(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3 + torch.arange(5.0).reshape(
        5, *(1 for _ in shape[2:])
    )
    mean, var = channel_moments(x)
    rows = x.double().transpose(0, 1).flatten(1)
    assert torch.allclose(mean, rows.mean(1), rtol=1e-9, atol=1e-9) and torch.allclose(var, rows.var(1), rtol=1e-5)


@pytest.mark.parametrize("p", [0.0, 0.5])
@pytest.mark.parametrize("spatial", [False, True])
def test_dropout_of_a_flat_part_is_recognised(tmp_path: Path, p: float, spatial: bool) -> None:
    head: list[nn.Module] = []
    for into, out in ((12, 64), (64, 64 if not spatial else 24 * 16)):
        head += [nn.Linear(into, out), nn.BatchNorm1d(out), nn.ReLU(), nn.Dropout(p)]
    tail = (
        [
            nn.Unflatten(1, (24, 4, 4)),
            nn.ConvTranspose2d(24, 16, 4, 2, 1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Dropout(p),
            nn.ConvTranspose2d(16, 3, 4, 2, 1),
            nn.Tanh(),
        ]
        if spatial
        else [nn.Linear(64, 2)]
    )
    network = load_generator(
        save(calibrated(nn.Sequential(*head, *tail), normal(12), batches=200).state_dict(), tmp_path)
    )
    entry = next(entry for entry in network.assumptions if entry.what.startswith("dropout"))
    assert float(entry.value.split(" ")[0]) == p, entry


def test_the_most_copied_upsampling_dcgan_has_its_leaky_slope_and_its_eps(tmp_path: Path) -> None:
    """PyTorch-GAN's, in its own width: eps 0.8 by mistake, and not in the first norm; an activation first shows at the third norm."""
    net = InTwo(
        nn.Sequential(nn.Linear(100, 128 * 64)),
        nn.Sequential(
            nn.BatchNorm2d(128),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(128, 128, 3, padding=1),
            nn.BatchNorm2d(128, 0.8),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(128, 64, 3, padding=1),
            nn.BatchNorm2d(64, 0.8),
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 1, 3, padding=1),
            nn.Tanh(),
        ),
        side=8,
    )
    torch.manual_seed(0)
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, 0, 0.02)  # as there: variances are small, and an eps of 0.8 is not
    with torch.no_grad():
        for _ in range(40):
            net.train()(torch.randn(32, 100))
    network = load_generator(save(net.eval().state_dict(), tmp_path))
    told = {entry.what.split(" (")[0]: entry for entry in network.assumptions}
    assert told["hidden activation"].value.startswith("leaky:0.2 ") and told["batch-norm eps"].value.startswith("0.8 ")
    assert told["hidden activation"].source == told["batch-norm eps"].source == "batch-norm"
    z = torch.randn(2, 100)
    with torch.no_grad():
        assert torch.allclose(network.forward(z), net(z), atol=1e-5)


def test_twelve_channels_are_three_that_are_shuffled_once_more(tmp_path: Path) -> None:
    net = calibrated(Ended(), normal(12))
    network = load_generator(save(net.state_dict(), tmp_path))
    assert network.output.shape == (3, 16, 16)
    z = torch.randn(4, 12)
    with torch.no_grad():
        assert torch.allclose(network.forward(z), net(z), atol=1e-6)


class Ended(nn.Module):
    """Two shuffles, the second one behind the last convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm0 = nn.Linear(12, 16 * 16), nn.BatchNorm2d(16)
        self.conv1, self.norm1, self.last = (
            nn.Conv2d(16, 64, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.Conv2d(16, 12, 3, padding=1),
        )

    def forward(self, z: Tensor) -> Tensor:
        x = self.norm0(self.first(z).reshape(-1, 16, 4, 4)).relu()
        x = self.norm1(nn.functional.pixel_shuffle(self.conv1(x), 2)).relu()
        return nn.functional.pixel_shuffle(self.last(x), 2).tanh()


def test_residual_blocks_are_no_chain(tmp_path: Path) -> None:
    """Their layers follow each other by shape; read as a chain of eight convolutions they would make a picture of 512 pixels."""
    state = {"first.weight": torch.randn(16 * 16, 12), "first.bias": torch.zeros(16 * 16)}
    for block in range(3):
        for name, kernel in (("conv1", 3), ("conv2", 3), ("sc", 1)):
            state |= {
                f"r{block}.{name}.weight": torch.randn(16, 16, kernel, kernel),
                f"r{block}.{name}.bias": torch.zeros(16),
            }
    state |= {"last.weight": torch.randn(3, 16, 3, 3), "last.bias": torch.zeros(3)}
    with pytest.raises(LoadError, match=r"\(r0\.sc stands beside other layers"):
        load_generator(save(state, tmp_path))
    with pytest.raises(LoadError, match="do not say where the picture is upsampled"):
        load_generator(save({name.replace(".sc.", ".third."): entry for name, entry in state.items()}, tmp_path))


def test_ema_pytorch_keeps_the_average_and_what_it_is_taken_of(tmp_path: Path) -> None:
    raw, average = (calibrated(DCGAN(), normal(12), seed=seed) for seed in (0, 1))
    state = {
        f"{head}.{name}": entry
        for head, net in (("online_model", raw), ("ema_model", average))
        for name, entry in net.state_dict().items()
    }
    file = save({**state, "initted": torch.tensor(True), "step": torch.tensor(7)}, tmp_path)
    z = torch.randn(4, 12, 1, 1)
    with torch.no_grad():
        for config, net in ((AuditConfig(), average), (AuditConfig(weights="raw"), raw)):
            assert torch.allclose(load_generator(file, config).forward(z), net(z), atol=1e-6)


def test_a_first_kernel_that_is_square_takes_latents(tmp_path: Path) -> None:
    net = nn.Sequential(
        nn.ConvTranspose2d(24, 24, 3, 2),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.ConvTranspose2d(24, 12, 4, 2, 1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 3, 4, 2, 1),
        nn.Tanh(),
    )
    draw = normal(24)
    network = load_generator(save(calibrated(net, lambda rng: draw(rng)[:, :, None, None]).state_dict(), tmp_path))
    assert network.latent.dim == 24 and network.output.shape == (3, 12, 12)
