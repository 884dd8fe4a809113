"""Whole pickled networks are rebuilt without their code: structure, eps and slopes come from the file."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from assumption_lookup import find_assumption
from torch import Tensor, nn
from toy_generators import DCGAN, calibrated, critic, mlp, normal, save, shuffled

from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.checkpoints.loader import load_generator
from gandiag.errors import LoadError


class PytorchGan(nn.Module):
    """The layout of PyTorch-GAN's dcgan: a linear layer held by name, a Sequential, 0.8 in the place of eps."""

    def __init__(self) -> None:
        super().__init__()
        self.init_size = 8
        self.l1 = nn.Sequential(nn.Linear(10, 16 * 64))
        self.conv_blocks = nn.Sequential(
            nn.BatchNorm2d(16),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(16, 16, 3, 1, 1),
            nn.BatchNorm2d(16, 0.8),
            nn.LeakyReLU(0.2),
            nn.Dropout2d(0.1),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(16, 3, 3, 1, 1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.conv_blocks(self.l1(z).view(len(z), 16, 8, 8))
        return out


class Functional(nn.Module):
    """Layers by name and activations as functions: the order of execution is not in the file."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 2)

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(z)))))
        return out


class Gated(nn.Module):
    """A parameter of its own, and a forward() that gandiag cannot know."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.gate = nn.Linear(4, 8), nn.Parameter(torch.ones(8))

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.fc(z) * self.gate
        return out


def assert_same_outputs(network: LoadedGenerator, original: nn.Module) -> None:
    z = torch.randn(6, *network.latent.shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        assert torch.equal(network.forward(z), original.eval()(z).reshape(6, *network.output.shape))


def unusual() -> nn.Sequential:
    """An uncommon stride, eps, slope and padding that only the file can tell."""
    return nn.Sequential(
        nn.ConvTranspose2d(9, 8, 5, 1),
        nn.BatchNorm2d(8, eps=0.03),
        nn.LeakyReLU(0.37),
        nn.ConvTranspose2d(8, 6, 5, 3, 2, 1),
        nn.InstanceNorm2d(6, affine=True),
        nn.PReLU(),
        nn.ReflectionPad2d(1),
        nn.Conv2d(6, 8, 3),
        nn.PixelShuffle(2),
        nn.Sigmoid(),
    )


@pytest.mark.parametrize("zipped", [True, False])
def test_a_sequential_of_standard_layers(tmp_path: Path, zipped: bool) -> None:
    net = shuffled(unusual())
    torch.save(net, tmp_path / "g", _use_new_zipfile_serialization=zipped)
    network = load_generator(tmp_path / "g")
    assert network.output.range == (0.0, 1.0) and network.notes == () and network.subject["family"] == "pickled"
    assert_same_outputs(network, net)


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_of_plain_pickles(tmp_path: Path, protocol: int) -> None:
    net = shuffled(unusual())
    (tmp_path / "g.pkl").write_bytes(pickle.dumps({"G": net, "step": 3}, protocol))
    network = load_generator(tmp_path / "g.pkl")
    assert network.subject["weights"] == "G"
    assert_same_outputs(network, net)


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_of_state_dicts(tmp_path: Path, protocol: int) -> None:
    net = shuffled(DCGAN()).half()
    (tmp_path / "g.pkl").write_bytes(pickle.dumps(net.state_dict(), protocol))
    assert_same_outputs(load_generator(tmp_path / "g.pkl"), net.float())


def test_classes_whose_parts_are_registered_in_order(tmp_path: Path) -> None:
    net = calibrated(PytorchGan(), normal(10))
    network = load_generator(save(nn.DataParallel(net), tmp_path))
    assert network.output.shape == (3, 32, 32) and network.notes == (
        "the file contains code that was not run: "
        "torch.nn.parallel.data_parallel.DataParallel, test_pickled_module.PytorchGan",
    )
    assert_same_outputs(network, net)
    assert find_assumption(network, "layer_settings").source == "file"
    order = find_assumption(network, "forward")
    assert (order.value, order.source) == ("layers in the order of registration", "default")
    assert "PytorchGan" in order.note
    assert_same_outputs(
        load_generator(
            save(
                {"epoch": 3, "netG": net, "netD": critic(), "optimizerG": torch.optim.Adam(net.parameters())}, tmp_path
            )
        ),
        net,
    )


def test_networks_with_functional_activations_are_rebuilt_by_shape(tmp_path: Path) -> None:
    net = shuffled(Functional())
    network = load_generator(save(net, tmp_path))
    assert network.subject["family"] == "mlp"
    assert_same_outputs(network, net)


def test_an_error_names_the_class_that_cannot_be_run(tmp_path: Path) -> None:
    with pytest.raises(LoadError) as caught:
        load_generator(save(Gated(), tmp_path))
    assert (
        "holds a whole object (test_pickled_module.Gated) whose forward() is not in the file: its 3 tensors can be read"
        in caught.value.message
    )
    assert "--model pkg.mod:factory" in caught.value.hint


def persistent(cls: str, net: nn.Module, **init: Any) -> Any:
    """An object as NVIDIA's persistence writes it: the source of its class, and its state."""
    state = {**net.__dict__, "_init_args": (), "_init_kwargs": init}
    return Reconstructed(
        {
            "type": "class",
            "version": 6,
            "module_src": "raise SystemExit('the source was run')",
            "class_name": cls,
            "state": state,
        }
    )


class Reconstructed:
    def __init__(self, meta: dict[str, Any]) -> None:
        self.meta = meta

    def __reduce__(self) -> Any:
        return _reconstruct_persistent_obj, (self.meta,)


def _reconstruct_persistent_obj(meta: Any) -> Any:
    raise AssertionError("the file was unpickled")


def test_persistent_objects_are_read_as_data(tmp_path: Path) -> None:
    net = shuffled(mlp((5, 16, 2)))
    content = {
        "G": persistent("Generator", shuffled(mlp((5, 16, 2)), 3)),
        "G_ema": persistent("Generator", net, z_dim=5),
        "training_set_kwargs": {"res": 3},
    }
    (tmp_path / "network-snapshot.pkl").write_bytes(pickle.dumps(content))
    network = load_generator(tmp_path / "network-snapshot.pkl")
    assert (
        network.subject["weights"].startswith("G_ema (EMA copy") and "_reconstruct_persistent_obj" in network.notes[0]
    )
    assert_same_outputs(network, net)


class Synthesizer:
    """A training object that keeps its generator as an attribute, as vegans and CTGAN do."""

    def __init__(self, generator: nn.Module) -> None:
        self.epochs, self._generator, self.loss = 300, generator, nn.BCELoss()


def test_objects_that_hold_a_generator(tmp_path: Path) -> None:
    net = shuffled(mlp((5, 16, 2)))
    network = load_generator(save(Synthesizer(net), tmp_path))
    assert network.subject["weights"] == "_generator"
    assert_same_outputs(network, net)


def test_tensors_that_share_a_storage_keep_their_values(tmp_path: Path) -> None:
    whole = torch.randn(40, 6)
    views = {
        "fc1.weight": whole[2:18, 1:5],
        "fc1.bias": whole[:16, 5],
        "fc2.weight": whole[:16, :2].t(),
        "fc2.bias": torch.zeros(2),
    }
    network = load_generator(save(views, tmp_path))
    z = torch.randn(3, 4)
    expected = torch.relu(z @ whole[2:18, 1:5].T + whole[:16, 5]) @ whole[:16, :2]
    assert torch.allclose(network.forward(z), expected, atol=1e-5)
