"""What lies between the last BatchNorm and the last layer, which no statistics see: open unless a size tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from assumption_lookup import find_assumption
from torch import Tensor, nn
from torch.nn import functional as F
from toy_generators import calibrated, normal, save

from gandiag.checkpoints.confidence import assess_confidence
from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.pipeline.real_size import open_subject_of_size

LATENT = 8


def settle(net: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    return calibrated(net, normal(LATENT), batches=80)


def difference(network: LoadedGenerator, net: nn.Module) -> float:
    z = torch.randn(4, *network.latent.shape)
    with torch.no_grad():
        expected, actual = net(z), network.forward(z)
    return float((expected - actual).abs().max()) if expected.shape == actual.shape else float("inf")


def read_beside_real(net: nn.Module, file: Path) -> LoadedGenerator:
    """The network as an audit opens it beside samples of the true one."""
    with torch.no_grad():
        images = ((net(torch.randn(16, LATENT)) + 1) * 127.5).byte().permute(0, 2, 3, 1)
    np.savez(file.with_suffix(".npz"), images=images.numpy())
    subject = open_subject_of_size(str(file), AuditConfig(), str(file.with_suffix(".npz")))
    assert subject.sampler is not None and isinstance(subject.sampler.generator, LoadedGenerator)
    return subject.sampler.generator


def make_upsampling(*before_last: nn.Module) -> nn.Module:
    """Numbered modules: upsampling, convolution, norm and activation twice, then `before_last` and a convolution."""

    def block(into: int, out: int) -> list[nn.Module]:
        convolution = nn.Conv2d(into, out, 3, padding=1)
        return [nn.Upsample(scale_factor=2), convolution, nn.BatchNorm2d(out), nn.LeakyReLU(0.2)]

    start = [nn.Flatten(), nn.Linear(LATENT, 16 * 4), nn.Unflatten(1, (16, 2, 2))]
    return nn.Sequential(*start, *block(16, 12), *block(12, 8), *before_last, nn.Conv2d(8, 3, 3, padding=1), nn.Tanh())


class Named(nn.Module):
    """Transposed convolutions by name; `function` before the last one."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.deconv1, self.bn1 = nn.ConvTranspose2d(LATENT, 24, 4, 1, 0), nn.BatchNorm2d(24)
        self.deconv2, self.bn2 = nn.ConvTranspose2d(24, 16, 4, 2, 1), nn.BatchNorm2d(16)
        self.deconv3 = nn.ConvTranspose2d(16, 3, 4, 2, 1)

    def forward(self, z: Tensor) -> Tensor:
        x = F.elu(self.bn1(self.deconv1(z.reshape(len(z), LATENT, 1, 1))))
        return torch.tanh(self.deconv3(self.function(F.elu(self.bn2(self.deconv2(x))))))


@pytest.mark.parametrize("layer", [nn.Upsample(scale_factor=2), nn.AvgPool2d(2), nn.InstanceNorm2d(8)])
def test_a_numbered_module_that_nothing_sees_is_open(layer: nn.Module, tmp_path: Path) -> None:
    file = save(settle(make_upsampling(layer)).state_dict(), tmp_path)
    assert assess_confidence(load_generator(file)).word == "open"


def test_no_module_but_the_activation_leaves_nothing_open(tmp_path: Path) -> None:
    net = settle(make_upsampling())
    network = load_generator(save(net.state_dict(), tmp_path))
    assert difference(network, net) < 1e-5 and assess_confidence(network).word == "settled"


def test_the_size_of_real_data_confirms_the_upsampling(tmp_path: Path) -> None:
    net = settle(make_upsampling(nn.Upsample(scale_factor=2)))
    network = read_beside_real(net, Path(save(net.state_dict(), tmp_path)))
    assert difference(network, net) < 1e-5 and assess_confidence(network).word == "settled"


@pytest.mark.parametrize(
    "function", [lambda x: x, pytest.param(lambda x: F.interpolate(x, scale_factor=2), marks=pytest.mark.slow)]
)
def test_functions_between_named_layers_are_open_and_real_data_tell(
    function: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    net = settle(Named(function))
    file = Path(save(net.state_dict(), tmp_path))
    network = load_generator(file)
    assert assess_confidence(network).word == "open" and find_assumption(network, "hidden_norm").source == "default"
    network = read_beside_real(net, file)
    assert difference(network, net) < 1e-5 and "hidden norm" not in assess_confidence(network).grounds


def test_two_poolings_of_the_same_size_stay_undecided(tmp_path: Path) -> None:
    net = settle(Named(lambda x: F.max_pool2d(x, 2)))
    file = Path(save(net.state_dict(), tmp_path))
    network = read_beside_real(net, file)
    assert network.output.shape == (3, 8, 8)
    subject = open_subject_of_size(str(file), AuditConfig(), str(file.with_suffix(".npz")))
    assert [entry.undecided for entry in subject.assumptions if entry.setting == "hidden_norm"] == [True]


def test_a_numbered_dcgan_is_not_open(tmp_path: Path) -> None:
    net = nn.Sequential(
        *(nn.Flatten(), nn.Unflatten(1, (LATENT, 1, 1))),
        *(nn.ConvTranspose2d(LATENT, 24, 4, 1, 0), nn.BatchNorm2d(24), nn.ELU()),
        *(nn.ConvTranspose2d(24, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ELU()),
        *(nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh()),
    )
    network = load_generator(save(settle(net).state_dict(), tmp_path))
    assert difference(network, net) < 1e-5 and assess_confidence(network).word == "settled"


def test_a_hidden_layer_and_another_image_size_are_refused(tmp_path: Path) -> None:
    file = save(settle(Named(lambda x: x)).state_dict(), tmp_path)
    with pytest.raises(LoadError, match="leads to image size 8"):
        load_generator(file, AuditConfig(hidden_norm="avg-pool", image_size=16))
