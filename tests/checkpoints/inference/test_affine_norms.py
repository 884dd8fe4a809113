"""GroupNorm, affine InstanceNorm, LayerNorm and PReLU in plain stacks: torch's own modules are the reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from assumption_lookup import find_assumption
from safetensors.torch import save_file
from torch import Tensor, nn

from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.checkpoints.loader import load_generator
from gandiag.checkpoints.model_source import write_model_source
from gandiag.config import AuditConfig
from gandiag.errors import LoadError

Z = 10


def dcgan(norm: Callable[[int], nn.Module], act: Callable[[int], nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = Z
    for index, out in enumerate((32, 16, 8)):
        layers += [nn.ConvTranspose2d(width, out, 4, *((1, 0) if index == 0 else (2, 1))), norm(out), act(out)]
        width = out
    return nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh())


def upsampling(norm: Callable[[int], nn.Module], act: Callable[[int], nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(Z, 16 * 16), nn.Unflatten(1, (16, 4, 4)), norm(16), act(16)]
    for width, out in ((16, 16), (16, 8)):
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, out, 3, 1, 1), norm(out), act(out)]
    return nn.Sequential(*layers, nn.Conv2d(8, 3, 3, 1, 1), nn.Tanh())


def mlp(norm: Callable[[int], nn.Module], act: Callable[[int], nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, out in ((Z, 24), (24, 32)):
        layers += [nn.Linear(width, out), norm(out), act(out)]
    return nn.Sequential(*layers, nn.Linear(32, 2))


def trained(net: nn.Module) -> nn.Module:
    """Gains, biases and slopes away from their start, as training leaves them."""
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.PReLU):
                layer.weight.add_(0.1 * torch.randn(layer.weight.shape, generator=rng))
            elif isinstance(layer, (nn.GroupNorm, nn.InstanceNorm2d, nn.LayerNorm)):
                assert layer.weight is not None and layer.bias is not None
                layer.weight.add_(0.3 * torch.randn(layer.weight.shape, generator=rng))
                layer.bias.add_(0.3 * torch.randn(layer.bias.shape, generator=rng))
    return net.eval()


def instance(channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True)


def grouped(groups: int) -> Callable[[int], nn.Module]:
    return lambda channels: nn.GroupNorm(groups, channels)


def assert_same(network: LoadedGenerator, net: nn.Module) -> None:
    z = torch.randn(6, Z, generator=torch.Generator().manual_seed(1))
    shaped: Tensor = z.reshape(6, Z, 1, 1) if isinstance(net, nn.Sequential) and _starts_at_pixel(net) else z
    with torch.no_grad():
        expected = net(shaped)
    assert torch.allclose(network.forward(z.reshape(6, *network.latent.shape)), expected, atol=1e-5)


def _starts_at_pixel(net: nn.Sequential) -> bool:
    return isinstance(net[0], nn.ConvTranspose2d)


RELU: Callable[[int], nn.Module] = lambda channels: nn.ReLU()  # noqa: E731
CASES: dict[str, tuple[Callable[[], nn.Sequential], dict[str, Any]]] = {
    "dcgan_instance": (lambda: dcgan(instance, RELU), {}),
    "dcgan_group": (lambda: dcgan(grouped(4), RELU), {"hidden_norm": "group:4"}),
    "dcgan_prelu": (lambda: dcgan(instance, nn.PReLU), {}),
    "dcgan_one_slope": (lambda: dcgan(instance, lambda channels: nn.PReLU()), {}),
    "upsampling_layer": (lambda: upsampling(grouped(1), RELU), {"hidden_norm": "layer"}),
    "upsampling_prelu": (lambda: upsampling(instance, nn.PReLU), {}),
    "mlp_layer": (lambda: mlp(nn.LayerNorm, RELU), {}),
    "mlp_layer_prelu": (lambda: mlp(nn.LayerNorm, nn.PReLU), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_network_is_read(tmp_path: Path, name: str) -> None:
    make, flags = CASES[name]
    torch.manual_seed(0)
    net = trained(make())
    torch.save(net.state_dict(), tmp_path / "G.pth")
    network = load_generator(tmp_path / "G.pth", AuditConfig(**flags))
    assert_same(network, net)
    source = write_model_source(network)
    assert ("PReLU" in source) == ("prelu" in name or "slope" in name)


def test_versions_tell_instance_norm_and_leave_groups_open(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(trained(dcgan(instance, RELU)).state_dict(), tmp_path / "a.pth")
    norm = find_assumption(load_generator(tmp_path / "a.pth"), "hidden_norm")
    assert (norm.value, norm.source) == ("instance", "metadata")
    torch.save(trained(dcgan(grouped(2), RELU)).state_dict(), tmp_path / "b.pth")
    network = load_generator(tmp_path / "b.pth", AuditConfig(activation="relu", prior="normal"))
    assert network.open_readings is not None
    assert dict(network.open_readings.settings) == {"hidden_norm": "group:4"}
    others = [reading.settings["hidden_norm"] for reading in network.open_readings.make()]
    assert others == ["group:2", "layer"]
    right = next(entry for entry in network.open_readings.make() if entry.settings["hidden_norm"] == "group:2")
    assert isinstance(right.generator, LoadedGenerator)
    assert_same(right.generator, trained_like(tmp_path / "b.pth"))


def trained_like(path: Path) -> nn.Module:
    net = dcgan(grouped(2), RELU)
    net.load_state_dict(torch.load(path, weights_only=True))
    return net.eval()


def test_without_versions_the_norm_is_undecided(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(dcgan(instance, RELU).state_dict(), tmp_path / "G.safetensors")
    norm = find_assumption(load_generator(tmp_path / "G.safetensors"), "hidden_norm")
    assert (norm.value, norm.source) == ("instance", "undecided")
    assert "BatchNorm, if the file leaves its statistics out" in norm.note


@pytest.mark.parametrize(
    "state, flags, message",
    [
        ({"conv.weight": (Z, 8, 4, 4), "bn.weight": 8, "bn.bias": 8, "out.weight": (8, 3, 4, 4)}, {}, "running stat"),
        ({"conv.weight": (Z, 8, 4, 4), "gn.weight": 7, "gn.bias": 7, "out.weight": (8, 3, 4, 4)}, {}, "7 entries"),
        ({"conv.weight": (Z, 8, 4, 4), "gn.weight": 8, "gn.bias": 6, "out.weight": (8, 3, 4, 4)}, {}, "does not fit"),
        ({"0.weight": (24, Z), "1.weight": 23, "1.bias": 23, "3.weight": (2, 24)}, {}, "1.weight is"),
        (
            {"conv.weight": (Z, 8, 4, 4), "gn.weight": 8, "gn.bias": 8, "out.weight": (8, 3, 4, 4)},
            {"hidden_norm": "group:32"},
            "--hidden-norm group:32 contradicts",
        ),
        ({"a.weight": (24, Z), "b.weight": (24, 24), "act.weight": 1, "c.weight": (2, 24)}, {}, "may share"),
        ({"a.weight": (24, Z), "scale.weight": 24, "c.weight": (2, 24)}, {}, "a gain without a bias"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, state: dict[str, Any], flags: dict[str, Any], message: str
) -> None:
    tensors = {
        name: torch.full((size,), 0.25 if name.startswith("act") else 1.0)
        if isinstance(size, int)
        else torch.randn(size)
        for name, size in state.items()
    }
    torch.save(tensors, tmp_path / "G.pth")
    with pytest.raises(LoadError, match=message):
        load_generator(tmp_path / "G.pth", AuditConfig(**flags))
