"""Networks rebuilt from state dicts: the same outputs as the originals, bit for bit."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from assumption_lookup import find_assumption
from torch import Tensor, nn
from toy_generators import DCGAN, calibrated, critic, mlp, normal, save, shuffled

from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.probes.batchnorm_mismatch import statistics_mismatch


def assert_same_outputs(network: LoadedGenerator, original: nn.Module, *, seed: int = 5) -> None:
    """Exactly equal outputs for the same latents."""
    z = torch.randn(6, *network.latent.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = original.eval()(z)
    assert torch.equal(network.forward(z), expected.reshape(6, *network.output.shape))


@pytest.fixture(scope="module")
def dcgan() -> DCGAN:
    net = calibrated(DCGAN(), normal(12))
    assert isinstance(net, DCGAN)
    return net


def test_a_bare_dcgan_state_dict(dcgan: DCGAN, tmp_path: Path) -> None:
    network = load_generator(save(dcgan.state_dict(), tmp_path), AuditConfig())
    assert (network.latent.dim, network.latent.shape, network.output.shape) == (12, (12, 1, 1), (3, 32, 32))
    assert network.output.range == (-1.0, 1.0) and network.classes is None
    assert network.subject["family"] == "transposed" and len(network.subject["sha256"]) == 64
    assert network.subject["parameters"] == sum(entry.numel() for entry in dcgan.parameters())
    assert not network.module.training and not any(entry.requires_grad for entry in network.module.parameters())
    assert_same_outputs(network, dcgan)


def wrapped_ddp(state: dict[str, Tensor]) -> Any:
    return OrderedDict((f"module.{key}", entry) for key, entry in state.items())


def wrapped_compiled(state: dict[str, Tensor]) -> Any:
    return OrderedDict((f"_orig_mod.module.{key}", entry) for key, entry in state.items())


def wrapped_average(state: dict[str, Tensor]) -> Any:
    return OrderedDict([("n_averaged", torch.tensor(3)), *((f"module.{key}", entry) for key, entry in state.items())])


@pytest.mark.parametrize("wrap", [wrapped_ddp, wrapped_compiled, wrapped_average])
def test_wrappers_prefixes_come_off(dcgan: DCGAN, tmp_path: Path, wrap: Any) -> None:
    assert_same_outputs(load_generator(save(wrap(dcgan.state_dict()), tmp_path)), dcgan)


@pytest.mark.parametrize("zipped", [True, False])
def test_zip_and_legacy_containers(dcgan: DCGAN, tmp_path: Path, zipped: bool) -> None:
    torch.save(dcgan.state_dict(), tmp_path / "g", _use_new_zipfile_serialization=zipped)
    network = load_generator(tmp_path / "g")
    assert network.subject["loader"] == ("torch-zip" if zipped else "torch-legacy")
    assert_same_outputs(network, dcgan)


def test_safetensors_under_a_misleading_name(dcgan: DCGAN, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    # More than ten numbered layers: main.10 must not come before main.2.
    net = calibrated(DCGAN(blocks=4, ngf=2), normal(12), batches=5)
    save_file({key: entry.contiguous() for key, entry in net.state_dict().items()}, tmp_path / "g.pt")
    network = load_generator(tmp_path / "g.pt")
    assert network.subject["loader"] == "safetensors"
    assert_same_outputs(network, net)


def test_half_precision_weights_are_read_as_float(tmp_path: Path) -> None:
    net = shuffled(mlp()).half()
    network = load_generator(save(net.state_dict(), tmp_path))
    assert_same_outputs(network, net.float())


# training dicts


def test_the_average_is_preferred_and_reported(dcgan: DCGAN, tmp_path: Path) -> None:
    raw = shuffled(DCGAN(), seed=9)
    file = save(
        {"netG": raw.state_dict(), "netG_ema": dcgan.state_dict(), "netD": critic().state_dict(), "epoch": 7}, tmp_path
    )
    network = load_generator(file)
    assert_same_outputs(network, dcgan)
    assert network.subject["weights"] == "netG_ema (EMA copy; the raw netG is there too: --weights raw)"
    assert_same_outputs(load_generator(file, AuditConfig(weights="raw")), raw)
    assert_same_outputs(load_generator(file, AuditConfig(key="netG")), raw)


def test_namespaces_and_numpy_numbers_are_data(dcgan: DCGAN, tmp_path: Path) -> None:
    extras = {
        "args": argparse.Namespace(nz=12),
        "loss": np.float64(1.5),
        "losses": np.arange(3.0),
        "best": np.float32(2),
    }
    optimizer = torch.optim.Adam(dcgan.parameters()).state_dict()
    file = save({"generator_state_dict": wrapped_ddp(dcgan.state_dict()), "optimizerG": optimizer, **extras}, tmp_path)
    assert_same_outputs(load_generator(file), dcgan)


def test_lightning_checkpoints(dcgan: DCGAN, tmp_path: Path) -> None:
    both = {f"generator.{key}": entry for key, entry in dcgan.state_dict().items()}
    both |= {f"discriminator.{key}": entry for key, entry in critic().state_dict().items()}
    network = load_generator(save({"state_dict": both, "epoch": 3, "pytorch-lightning_version": "2.0"}, tmp_path))
    assert network.subject["weights"] == "state_dict.generator"
    assert_same_outputs(network, dcgan)


def test_averages_without_names_or_buffers(dcgan: DCGAN, tmp_path: Path) -> None:
    average = [entry.detach().clone() for entry in dcgan.parameters()]
    network = load_generator(save({"g": dcgan.state_dict(), "g_ema": average}, tmp_path))
    assert "matched by order" in network.notes[0]
    assert_same_outputs(network, dcgan)
    named = {name: entry.detach() for name, entry in dcgan.named_parameters()}
    network = load_generator(save({"g": dcgan.state_dict(), "g_ema": named}, tmp_path))
    assert "no BatchNorm statistics" in network.notes[0]
    assert_same_outputs(network, dcgan)


# what the file does not state


@pytest.mark.parametrize("act, name", [(nn.ReLU, "relu"), (lambda: nn.LeakyReLU(0.2), "leaky:0.2")])
def test_batchnorm_settles_the_hidden_activation(tmp_path: Path, act: Any, name: str) -> None:
    net = calibrated(DCGAN(act=act), normal(12))
    network = load_generator(save(net.state_dict(), tmp_path))
    entry = find_assumption(network, "activation")
    assert (entry.value, entry.source) == (name, "batch-norm")
    assert_same_outputs(network, net)
    mismatch = statistics_mismatch(network)
    assert mismatch is not None and mismatch < 0.15
    wrong = load_generator(tmp_path / "netG.pth", AuditConfig(activation="tanh"))
    assert find_assumption(wrong, "activation").source == "flag"
    assert (statistics_mismatch(wrong) or 0) > 2 * mismatch


def test_batchnorm_settles_the_eps(tmp_path: Path) -> None:
    # PyTorch-GAN passes 0.8 as eps; nothing in the file shows it.
    net = calibrated(
        mlp((16, 64, 64, 64, 3072), norm=True, act=lambda: nn.LeakyReLU(0.2), final=nn.Tanh(), eps=0.8), normal(16)
    )
    network = load_generator(save(net.state_dict(), tmp_path))
    assert find_assumption(network, "bn_eps").value == 0.8
    assert find_assumption(network, "activation").value == "leaky:0.2"
    assert network.output.shape == (3, 32, 32)
    assert_same_outputs(network, net)


def test_one_batchnorm_settles_nothing_and_the_default_is_kept(tmp_path: Path) -> None:
    net = calibrated(mlp((8, 32, 2), norm=True, act=lambda: nn.LeakyReLU(0.2)), normal(8))
    entry = find_assumption(load_generator(save(net.state_dict(), tmp_path)), "activation")
    assert (entry.value, entry.source) == ("relu", "default")


def test_ring_generators_are_vectors_without_an_output_activation(tmp_path: Path) -> None:
    net = shuffled(mlp())
    network = load_generator(save(net.state_dict(), tmp_path))
    assert (network.output.kind, network.output.shape, network.output.range) == ("vector", (2,), None)
    assert (network.latent.shape, find_assumption(network, "output_activation").source) == ((2,), "metadata")
    assert_same_outputs(network, net)


def test_a_final_module_in_the_metadata_is_an_activation(tmp_path: Path) -> None:
    net = shuffled(mlp(final=nn.Tanh()))
    assert_same_outputs(load_generator(save(net.state_dict(), tmp_path)), net)
    net = shuffled(mlp(final=nn.Sigmoid()))
    assert_same_outputs(load_generator(save(net.state_dict(), tmp_path), AuditConfig(output_range=(0.0, 1.0))), net)


def test_activations_fill_gaps_in_the_module_numbers(tmp_path: Path) -> None:
    net = shuffled(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)))
    assert_same_outputs(load_generator(save(net.state_dict(), tmp_path)), net)
    plain = dict(net.state_dict())  # without metadata
    assert_same_outputs(load_generator(save(plain, tmp_path)), net)


def test_functional_activations_are_assumed_between_all_layers(tmp_path: Path) -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2, self.fc3 = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 2)

        def forward(self, z: Tensor) -> Tensor:
            out: Tensor = self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(z)))))
            return out

    net = shuffled(Functional())
    assert_same_outputs(load_generator(save(net.state_dict(), tmp_path)), net)


class Unflattened(nn.Module):
    """Linear, reshape, then `tail`."""

    def __init__(self, head: nn.Module, tail: nn.Sequential, channels: int) -> None:
        super().__init__()
        self.l1, self.conv_blocks, self.channels = head, tail, channels

    def forward(self, z: Tensor) -> Tensor:
        flat = self.l1(z)
        side = round((flat.shape[1] / self.channels) ** 0.5)
        out: Tensor = self.conv_blocks(flat.view(len(z), self.channels, side, side))
        return out


def test_a_projection_then_transposed_convolutions(tmp_path: Path) -> None:
    head = nn.Sequential(nn.Linear(10, 24 * 49, bias=False), nn.BatchNorm1d(24 * 49), nn.ReLU())
    tail = nn.Sequential(
        nn.ConvTranspose2d(24, 12, 4, 2, 1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 1, 4, 2, 1),
        nn.Tanh(),
    )
    net = calibrated(Unflattened(head, tail, 24), normal(10))
    network = load_generator(save(net.state_dict(), tmp_path))
    assert (network.output.shape, network.subject["family"]) == ((1, 28, 28), "projected")
    assert_same_outputs(network, net)


@pytest.mark.parametrize("eps", [1e-5, 0.8])
def test_a_projection_then_upsampling(tmp_path: Path, eps: float) -> None:
    # PyTorch-GAN's dcgan passes 0.8 as eps to every BatchNorm but the first.
    tail = nn.Sequential(
        nn.BatchNorm2d(16),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(16, 16, 3, 1, 1),
        nn.BatchNorm2d(16, eps),
        nn.LeakyReLU(0.2),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(16, 8, 3, 1, 1),
        nn.BatchNorm2d(8, eps),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8, 3, 3, 1, 1),
        nn.Tanh(),
    )
    net = calibrated(Unflattened(nn.Sequential(nn.Linear(10, 16 * 64)), tail, 16), normal(10))
    network = load_generator(save(net.state_dict(), tmp_path))
    assert network.output.shape == (3, 32, 32)
    assert_same_outputs(network, net)


def test_the_image_size_chooses_the_geometry(tmp_path: Path) -> None:
    # 1 -> 3 -> 6 -> 13 -> 28, a generator for digits from many tutorials
    layers: list[nn.Module] = []
    for into, out, kernel, stride in ((8, 16, 3, 2), (16, 8, 4, 1), (8, 4, 3, 2)):
        layers += [nn.ConvTranspose2d(into, out, kernel, stride), nn.BatchNorm2d(out), nn.ReLU()]
    body = nn.Sequential(*layers, nn.ConvTranspose2d(4, 1, 4, 2), nn.Tanh())
    net = calibrated(body, lambda rng: torch.randn(32, 8, 1, 1, generator=rng))
    network = load_generator(save(net.state_dict(), tmp_path), AuditConfig(image_size=28))
    assert network.output.shape == (1, 28, 28) and {
        entry.source for entry in network.assumptions if entry.setting == "strides"
    } == {"flag"}
    with pytest.raises(LoadError, match="--image-size 640 contradicts the weights"):
        load_generator(tmp_path / "netG.pth", AuditConfig(image_size=640))


# labels joined to the latents


class Conditional(nn.Module):
    def __init__(self, body: nn.Module, classes: int, first: bool, spatial: bool) -> None:
        super().__init__()
        self.body, self.classes, self.first, self.spatial = body, classes, first, spatial

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        onehot = nn.functional.one_hot(labels, self.classes).float()
        joined = torch.cat([onehot, z.flatten(1)] if self.first else [z.flatten(1), onehot], 1)
        out: Tensor = self.body(joined[:, :, None, None] if self.spatial else joined)
        return out


def conditional(*, first: bool, spatial: bool, nz: int = 12, classes: int = 5, scale: float = 1.0) -> Conditional:
    body = DCGAN(nz + classes, ngf=16).main if spatial else mlp((nz + classes, 64, 64, 2), norm=True)
    net = Conditional(body, classes, first, spatial)
    rng = torch.Generator().manual_seed(1)
    shuffled(net, 4).train()
    with torch.no_grad():
        for _ in range(60):
            net(scale * torch.randn(32, nz, generator=rng), torch.randint(classes, (32,), generator=rng))
    net.eval()
    return net


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("spatial", [False, True])
def test_the_labels_are_found_among_the_inputs(tmp_path: Path, first: bool, spatial: bool) -> None:
    net = conditional(first=first, spatial=spatial)
    network = load_generator(save(net.body.state_dict(), tmp_path))
    assert (network.classes, network.condition, network.latent.dim, network.labels_first) == (5, "concat", 12, first)
    assert find_assumption(network, "classes").source == "batch-norm"
    z, labels = torch.randn(10, *network.latent.shape, generator=torch.Generator().manual_seed(2)), torch.arange(10) % 5
    with torch.no_grad():
        assert torch.equal(network.forward(z, labels), net(z, labels))
    with pytest.raises(LoadError, match="needs labels: it has 5 classes"):
        network.forward(z)


def test_labels_by_flags_if_no_batchnorm_shows_them(tmp_path: Path) -> None:
    net = shuffled(mlp((108, 32, 2)))
    file = save(net.state_dict(), tmp_path)
    network = load_generator(file, AuditConfig(classes=8, condition="concat"))
    assert (network.latent.dim, network.classes, network.labels_first) == (100, 8, False)
    assert load_generator(file, AuditConfig(latent_dim=100, condition="concat")).classes == 8
    assert load_generator(file).latent.dim == 108


def test_an_unconditional_network_shows_no_labels(dcgan: DCGAN, tmp_path: Path) -> None:
    for seed in range(4):
        net = calibrated(DCGAN(nz=12, ngf=16, blocks=2), normal(12), seed=seed)
        assert load_generator(save(net.state_dict(), tmp_path)).classes is None


def test_strict_allows_no_assumptions(dcgan: DCGAN, tmp_path: Path) -> None:
    file = save(dcgan.state_dict(), tmp_path)
    with pytest.raises(LoadError) as caught:
        load_generator(file, AuditConfig(strict=True))
    assert "--prior" in caught.value.hint and "--output-range" in caught.value.hint
    flags = AuditConfig(
        strict=True, prior="normal", activation="relu", bn_eps=1e-5, image_size=32, output_range=(-1.0, 1.0)
    )
    assert_same_outputs(load_generator(file, flags), dcgan)
