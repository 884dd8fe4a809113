"""pytorch_GAN_zoo's progressive GAN against the forward pass of Karras et al. 2018, written out over plain tensors."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from assumption_lookup import find_assumption
from torch import Tensor, nn
from toy_generators import calibrated, normal, save

from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
from gandiag.errors import LoadError

LATENT, DEPTHS = 6, (8, 8, 5)  # 4, 8 and 16 pixels
# float32: here the weights are scaled before the sum over hundreds of products, there the sum is scaled, in every layer
TOLERANCE = 1e-4
ATTRIBUTES = {"Nationality": {"order": 1, "values": ["a", "b", "c"]}, "Gender": {"order": 0, "values": ["m", "w"]}}


class BaseConfig:
    """Like the library's: an empty class that receives attributes and is pickled whole into every checkpoint."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


def draw_tensors(inputs: int = LATENT, depths: tuple[int, ...] = DEPTHS, seed: int = 0) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def add(path: str, *shape: int) -> None:
        state[f"{path}.module.weight"] = torch.randn(*shape, generator=rng)
        state[f"{path}.module.bias"] = torch.randn(shape[0], generator=rng)

    for scale, (before, depth) in enumerate(itertools.pairwise(depths)):
        add(f"scaleLayers.{scale}.0", depth, before, 3, 3)
        add(f"scaleLayers.{scale}.1", depth, depth, 3, 3)
    for scale, depth in enumerate(depths):
        add(f"toRGBLayers.{scale}", 3, depth, 1, 1)
    add("formatLayer", 16 * depths[0], inputs)
    add("groupScale0.0", depths[0], depths[0], 3, 3)
    return state


def forward(
    t: dict[str, Tensor], z: Tensor, *, alpha: float = 0.0, leak: float = 0.2, equalized: bool = True
) -> Tensor:
    def normalize(x: Tensor) -> Tensor:
        return x / torch.sqrt(x.pow(2).mean(1, keepdim=True) + 1e-8)

    def layer(path: str, x: Tensor) -> Tensor:
        """He's constant on the weight and on the bias, as in the library."""
        weight, bias = t[f"{path}.module.weight"], t[f"{path}.module.bias"]
        constant = math.sqrt(2) / math.sqrt(math.prod(weight.shape[1:])) if equalized else 1.0
        return (
            x @ (weight * constant).T + bias * constant
            if x.ndim == 2
            else F.conv2d(x, weight * constant, bias * constant, padding=weight.shape[-1] // 2)
        )

    def upsample(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def activate(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, leak * x)

    x = normalize(activate(layer("formatLayer", normalize(z))).reshape(len(z), -1, 4, 4))
    maps = [normalize(activate(layer("groupScale0.0", x)))]
    scales = sum(name.startswith("toRGBLayers") for name in t) // 2 - 1
    for scale in range(scales):
        x = upsample(maps[-1])
        for part in (0, 1):
            x = normalize(activate(layer(f"scaleLayers.{scale}.{part}", x)))
        maps.append(x)
    fine = layer(f"toRGBLayers.{scales}", maps[-1])
    return (
        fine
        if not alpha or not scales
        else alpha * upsample(layer(f"toRGBLayers.{scales - 1}", maps[-2])) + (1 - alpha) * fine
    )


def checkpoint(folder: Path, config: BaseConfig, inputs: int = LATENT, depths: tuple[int, ...] = DEPTHS) -> str:
    critic = {"decisionLayer.module.weight": torch.ones(1, 8), "decisionLayer.module.bias": torch.ones(1)}
    content = {
        "config": config,
        "netG": draw_tensors(inputs, depths, seed=1),
        "netD": critic,
        "avgG": draw_tensors(inputs, depths),
    }
    return save(content, folder, "run_s2_i900.pt")


def z(n: int = 6) -> Tensor:
    return torch.randn(n, LATENT, generator=torch.Generator().manual_seed(5))


def stated(network: LoadedGenerator, setting: str) -> tuple[Any, str, str]:
    """Value, source and origin of an assumption."""
    entry = find_assumption(network, setting)
    return entry.value, entry.source, entry.origin


@pytest.mark.parametrize("depths", [DEPTHS, DEPTHS[:2], DEPTHS[:1]])
@pytest.mark.parametrize(
    "settings", [{"alpha": 0.0}, {"alpha": 0.3, "leakyReluLeak": 0.1}, {"equalizedlR": False, "lossCriterion": "DCGAN"}]
)
def test_outputs_match_the_paper(tmp_path: Path, settings: dict[str, Any], depths: tuple[int, ...]) -> None:
    network = load_generator(checkpoint(tmp_path, BaseConfig(**settings), depths=depths))
    known = {
        "alpha": settings.get("alpha", 0),
        "leak": settings.get("leakyReluLeak", 0.2),
        "equalized": settings.get("equalizedlR", True),
    }
    expected = forward(draw_tensors(depths=depths), z(), **known)
    expected = expected.tanh() if settings.get("lossCriterion") == "DCGAN" else expected
    samples = network.forward(z())
    assert network.output.shape == (3, 4 * 2 ** (len(depths) - 1), 4 * 2 ** (len(depths) - 1))
    assert samples.std() > 0.1
    assert torch.allclose(samples, expected, atol=TOLERANCE)
    assert torch.allclose(network.forward(4 * z()), samples, atol=TOLERANCE)  # only the direction of z counts


def test_the_file_explains_itself(tmp_path: Path) -> None:
    settings = {
        "noiseVectorDim": LATENT,
        "alpha": 0.25,
        "lossCriterion": "WGANGP",
        "leakyReluLeak": 0.2,
        "equalizedlR": True,
    }
    network = load_generator(checkpoint(tmp_path, BaseConfig(**settings)))
    assert (network.subject["family"], network.latent.dim, network.classes) == ("PGAN (pytorch_GAN_zoo)", LATENT, None)
    assert network.subject["weights"].startswith("avgG (EMA copy; the raw netG")
    assert stated(network, "alpha") == (0.25, "file", "config")
    assert "still fading in" in find_assumption(network, "alpha").note
    assert stated(network, "final_activation") == (None, "file", "config")
    assert find_assumption(network, "final_activation").note == "loss WGANGP"
    assert stated(network, "negative_slope") == (0.2, "file", "config")
    raw = load_generator(checkpoint(tmp_path, BaseConfig(**settings)), AuditConfig(weights="raw"))
    assert torch.allclose(raw.forward(z()), forward(draw_tensors(seed=1), z(), alpha=0.25), atol=TOLERANCE)


def test_bare_weights_take_the_library_s_defaults(tmp_path: Path) -> None:
    network = load_generator(save(draw_tensors(), tmp_path, "avgG.pth"))
    assert torch.allclose(network.forward(z()), forward(draw_tensors(), z()), atol=TOLERANCE)
    assert stated(network, "weight_scale") == ("equalized", "family", "pytorch_GAN_zoo")
    with pytest.raises(LoadError, match="--strict allows no assumptions"):
        load_generator(save(draw_tensors(), tmp_path, "avgG.pth"), AuditConfig(strict=True))


def test_attributes_become_classes_in_the_library_s_order(tmp_path: Path) -> None:
    config = BaseConfig(noiseVectorDim=LATENT, attribKeysOrder=ATTRIBUTES)
    network = load_generator(checkpoint(tmp_path, config, inputs=LATENT + 5))
    assert (network.latent.dim, network.classes, network.condition) == (LATENT, 6, "index")
    gender, nation = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 1, 2, 0, 1, 2])
    inputs = torch.cat([z(), F.one_hot(gender, 2).float(), F.one_hot(nation, 3).float()], 1)
    assert torch.allclose(
        network.forward(z(), torch.arange(6)), forward(draw_tensors(LATENT + 5), inputs), atol=TOLERANCE
    )
    assert stated(network, "classes") == (6, "file", "config")
    assert find_assumption(network, "classes").note.startswith("2x3 values of Gender, Nationality")


def test_classes_given_by_flag_if_the_file_does_not_state_them(tmp_path: Path) -> None:
    path = save(draw_tensors(LATENT + 5), tmp_path, "avgG.pth")
    network = load_generator(path, AuditConfig(classes=5))
    assert (network.latent.dim, network.classes) == (LATENT, 5)
    expected = forward(draw_tensors(LATENT + 5), torch.cat([z(5), torch.eye(5)], 1))
    assert torch.allclose(network.forward(z(5), torch.arange(5)), expected, atol=TOLERANCE)


def test_inconsistent_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="takes 6 values, but its settings give 9 latents"):
        load_generator(checkpoint(tmp_path, BaseConfig(noiseVectorDim=9)))
    with pytest.raises(LoadError, match="do not state how many values each has"):
        load_generator(checkpoint(tmp_path, BaseConfig(attribKeysOrder={"a": {"order": 3, "values": ["x"]}})))
    many = {str(index): {"order": index, "values": ["y", "n"]} for index in range(11)}
    with pytest.raises(LoadError, match="2,048 classes, more than gandiag audits"):
        load_generator(checkpoint(tmp_path, BaseConfig(attribKeysOrder=many), inputs=LATENT + 22))
    with pytest.raises(LoadError, match="2 toRGBLayers for 3 resolutions"):
        load_generator(
            save(
                {name: entry for name, entry in draw_tensors().items() if not name.startswith("toRGBLayers.2")},
                tmp_path,
                "less.pt",
            )
        )
    style = draw_tensors() | {"mapping.FC.0.module.weight": torch.ones(8, 6), "baseScale0": torch.ones(1, 8, 4, 4)}
    del style["formatLayer.module.weight"]
    with pytest.raises(LoadError, match="pytorch_GAN_zoo's StyleGAN, which gandiag does not rebuild"):
        load_generator(save(style, tmp_path, "style.pt"))


class Dcgan(nn.Module):
    """The library's DCGAN: its layers have names, and only the loss shows the output activation."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.formatLayer = nn.ConvTranspose2d(LATENT, 8 * 2**depth, 4, bias=False)
        parts: dict[str, nn.Module] = {"batchNorm0": nn.BatchNorm2d(8 * 2**depth), "relu0": nn.ReLU()}
        for index in range(1, depth + 1):
            channels = 8 * 2 ** (depth - index)
            parts |= {
                f"convTranspose{index}": nn.ConvTranspose2d(2 * channels, channels, 4, 2, 1, bias=False),
                f"batchNorm{index}": nn.BatchNorm2d(channels),
                f"relu{index}": nn.ReLU(),
            }
        self.main = nn.Sequential(OrderedDict(parts | {"outlayer": nn.ConvTranspose2d(8, 3, 4, 2, 1, bias=False)}))

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.main(self.formatLayer(z[:, :, None, None]))
        return out


@pytest.mark.parametrize("loss, final", [("WGANGP", "none"), ("DCGAN", "tanh")])
def test_the_loss_decides_the_output_activation_of_dcgan(tmp_path: Path, loss: str, final: str) -> None:
    net = calibrated(Dcgan(), normal(LATENT))
    critic = {"main.convTranspose2.weight": torch.ones(8, 3, 4, 4)}
    file = save(
        {"config": BaseConfig(lossCriterion=loss, noiseVectorDim=LATENT), "netG": net.state_dict(), "netD": critic},
        tmp_path,
        "dcgan.pt",
    )
    network = load_generator(file)
    activation = find_assumption(network, "output_activation")
    assert (activation.value, activation.source) == (final, "file") and loss in activation.note
    with torch.no_grad():
        expected = net(z()) if final == "none" else net(z()).tanh()
    assert expected.std() > 0.05 and torch.allclose(network.forward(z()[:, :, None, None]), expected, atol=1e-5)
    flagged = find_assumption(load_generator(file, AuditConfig(output_range=(0.0, 1.0))), "output_activation")
    assert (flagged.value, flagged.source) == ("sigmoid", "flag")
