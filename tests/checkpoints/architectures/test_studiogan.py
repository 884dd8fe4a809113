"""StudioGAN's checkpoints against networks written here with torch's layers and the names of that code.

Spectral norm is torch's old one, as there; BatchNorm statistics and power iterations come from a few training batches.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.probes.batchnorm_mismatch import statistics_mismatch

CLASSES, DIM, WIDTH, EMBEDDING_DIM = 5, 12, 8, 6


class ConditionalNorm(nn.Module):
    """BatchNorm whose gain and bias are linear in the conditioning."""

    def __init__(self, conditioning_dim: int, width: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(width, 1e-4, affine=False)
        self.gain, self.bias = (
            spectral_norm(nn.Linear(conditioning_dim, width, bias=False)),
            spectral_norm(nn.Linear(conditioning_dim, width, bias=False)),
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.bn(x) * (1 + self.gain(y))[..., None, None] + self.bias(y)[..., None, None]
        return out


class PlainNorm(nn.BatchNorm2d):
    def __init__(self, conditioning_dim: int, width: int) -> None:
        super().__init__(width, 1e-4)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return super().forward(x)


def spectral_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of the old spectral_norm
        return nn.utils.spectral_norm(layer, eps=1e-6)


def conv(into: int, out: int, kernel: int, bias: bool = True) -> nn.Module:
    return spectral_norm(nn.Conv2d(into, out, kernel, padding=kernel // 2, bias=bias))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; the resolution doubles before the first."""

    def __init__(self, norm: Any, conditioning_dim: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = norm(conditioning_dim, WIDTH), norm(conditioning_dim, WIDTH)
        self.conv2d0, self.conv2d1, self.conv2d2 = conv(WIDTH, WIDTH, 1), conv(WIDTH, WIDTH, 3), conv(WIDTH, WIDTH, 3)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        h = self.conv2d1(F.interpolate(self.bn1(x, y).relu(), scale_factor=2, mode="nearest"))
        out: Tensor = self.conv2d2(self.bn2(h, y).relu()) + self.conv2d0(
            F.interpolate(x, scale_factor=2, mode="nearest")
        )
        return out


class BottleneckBlock(nn.Module):
    """Four convolutions; with a convolution on the shortcut in StudioGAN's own kind."""

    def __init__(self, norm: Any, conditioning_dim: int, upsample: bool, shortcut: bool) -> None:
        super().__init__()
        self.upsample, inner = upsample, WIDTH // 4
        self.bn1, self.bn2, self.bn3, self.bn4 = (
            norm(conditioning_dim, WIDTH),
            norm(conditioning_dim, inner),
            norm(conditioning_dim, inner),
            norm(conditioning_dim, inner),
        )
        self.conv2d1, self.conv2d2, self.conv2d3, self.conv2d4 = (
            conv(WIDTH, inner, 1),
            conv(inner, inner, 3),
            conv(inner, inner, 3),
            conv(inner, WIDTH, 1),
        )
        if shortcut:
            self.conv2d0 = conv(WIDTH, WIDTH, 1)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        h = self.bn2(self.conv2d1(self.bn1(x, y).relu()), y).relu()
        if self.upsample:
            h, x = F.interpolate(h, scale_factor=2), F.interpolate(x, scale_factor=2)
        h = self.conv2d3(self.bn3(self.conv2d2(h), y).relu())
        out: Tensor = self.conv2d4(self.bn4(h, y).relu()) + (self.conv2d0(x) if hasattr(self, "conv2d0") else x)
        return out


class DeconvBlock(nn.Module):
    def __init__(self, norm: Any, conditioning_dim: int, into: int, out: int) -> None:
        super().__init__()
        self.deconv0, self.bn0 = spectral_norm(nn.ConvTranspose2d(into, out, 4, 2, 1)), norm(conditioning_dim, out)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        out: Tensor = self.bn0(self.deconv0(x), y).relu()
        return out


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1x1_theta, self.conv1x1_phi = conv(WIDTH, WIDTH // 8, 1, False), conv(WIDTH, WIDTH // 8, 1, False)
        self.conv1x1_g, self.conv1x1_attn = conv(WIDTH, WIDTH // 2, 1, False), conv(WIDTH // 2, WIDTH, 1, False)
        self.sigma = nn.Parameter(torch.tensor([0.8]))

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        n, _, high, wide = x.shape
        key, value = (
            F.max_pool2d(part(x), 2).reshape(n, -1, high * wide // 4) for part in (self.conv1x1_phi, self.conv1x1_g)
        )
        weight = torch.einsum("ncq,nck->nqk", self.conv1x1_theta(x).reshape(n, -1, high * wide), key).softmax(-1)
        out: Tensor = x + self.sigma * self.conv1x1_attn(
            torch.einsum("nck,nqk->ncq", value, weight).reshape(n, -1, high, wide)
        )
        return out


class StudioGan(nn.Module):
    def __init__(self, backbone: str, *, classes: int | None = CLASSES, attention: bool = True) -> None:
        super().__init__()
        self.backbone, self.classes, blocks = backbone, classes, 3
        big, deep = backbone.startswith("big"), "deep_" in backbone and backbone != "deep_conv"
        self.chunk = DIM // (blocks + 1) if backbone == "big_resnet" else 0
        norm_inputs = (self.chunk or DIM if big else 0) + (0 if classes is None else EMBEDDING_DIM if big else CLASSES)
        norm: Any = ConditionalNorm if norm_inputs else PlainNorm
        if big and classes:
            self.shared = nn.Embedding(CLASSES, EMBEDDING_DIM)
        first = 2 * WIDTH if backbone == "deep_conv" else WIDTH
        self.linear0 = spectral_norm(nn.Linear(norm_inputs if deep else self.chunk or DIM, first * 16))
        layers: list[nn.Module] = []
        for block in range(blocks):
            if backbone == "deep_conv":
                layers.append(DeconvBlock(norm, norm_inputs, first if block == 0 else WIDTH, WIDTH))
            else:
                layers += (
                    [BottleneckBlock(norm, norm_inputs, index == 1, "studiogan" in backbone) for index in range(2)]
                    if deep
                    else [ResidualBlock(norm, norm_inputs)]
                )
            layers += [Attention()] if attention and block == 1 else []
        self.blocks = nn.ModuleList([nn.ModuleList([block]) for block in layers])
        if backbone == "deep_conv":
            self.conv4 = conv(WIDTH, 3, 3)
        else:
            self.bn4, self.conv2d5 = nn.BatchNorm2d(WIDTH, 1e-4), conv(WIDTH, 3, 3)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        y = None if self.classes is None else F.one_hot(label, CLASSES).float()
        if self.classes is not None and hasattr(self, "shared"):
            y = self.shared(label)
        parts = [] if y is None else [y]
        if self.backbone.startswith("big_resnet_deep"):
            z = torch.cat([*parts, z], 1)
            conditioning: list[Any] = [z] * 6
        elif self.chunk:
            z, *rest = z.split(self.chunk, 1)
            conditioning = [torch.cat([*parts, chunk], 1) for chunk in rest]
        else:
            conditioning = [y] * 3
        x = self.linear0(z)
        x = x.reshape(len(z), -1, 4, 4)
        for (block,) in self.blocks:  # type: ignore[misc]
            x = block(x, None if isinstance(block, Attention) else conditioning.pop(0))  # type: ignore[has-type]
        x = self.conv4(x) if self.backbone == "deep_conv" else self.conv2d5(self.bn4(x).relu())
        return torch.tanh(x)


def train(net: nn.Module, batches: int = 8) -> nn.Module:
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for entry in net.parameters():
            if entry.ndim == 1 and len(entry) > 1:
                entry += 0.1 * torch.randn(entry.shape, generator=rng)
        net.train()
        for _ in range(batches):
            net(torch.randn(8, DIM, generator=rng), torch.randint(CLASSES, (8,), generator=rng))
    return net.eval()


KINDS: dict[str, dict[str, Any]] = {
    "big_resnet": {},
    "big_resnet without classes": {"classes": None},
    "resnet": {},
    "resnet without classes": {"classes": None, "attention": False},
    "deep_conv": {},
    "deep_conv without classes": {"classes": None, "attention": False},
    "big_resnet_deep_legacy": {},
    "big_resnet_deep_studiogan": {},
    "big_resnet_deep_legacy without classes": {"classes": None},
}


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_match_the_layers(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    backbone = kind.split()[0]
    net = train(StudioGan(backbone, **KINDS[kind]))
    file = tmp_path / "model=G_ema-best-weights-step=2000.pth"
    torch.save({"state_dict": net.state_dict()}, file)
    network, classes = load_generator(file), KINDS[kind].get("classes", CLASSES)
    assert (network.subject["family"], network.latent.dim, network.output.shape) == (
        f"StudioGAN {backbone}",
        DIM,
        (3, 32, 32),
    )
    assert (network.classes, network.condition) == (classes, "index" if classes else None)
    z, labels = torch.randn(6, DIM), torch.arange(6) % CLASSES
    with torch.no_grad():
        expected = net(z, labels)
    assert expected.std() > 0.02
    assert torch.allclose(network.forward(z, labels if classes else None), expected, atol=1e-5)


def test_the_mismatch_probe_sees_these_batchnorms(tmp_path: Path) -> None:
    net = train(StudioGan("resnet"), 60)
    torch.save({"state_dict": net.state_dict()}, tmp_path / "G.pth")
    mismatches = [
        statistics_mismatch(load_generator(tmp_path / "G.pth", AuditConfig(activation=name))) for name in (None, "tanh")
    ]
    assert mismatches[0] is not None and mismatches[1] is not None
    assert 2 * mismatches[0] < mismatches[1]  # the wrong activation shows


def test_a_training_folder(tmp_path: Path) -> None:
    for name, classes in (
        ("G-best-weights-step=900", CLASSES),
        ("G_ema-best-weights-step=900", None),
        ("G_ema-current-weights-step=1000", CLASSES),
    ):
        state = {
            "state_dict": StudioGan("resnet", classes=classes).state_dict(),
            "optimizer": {"state": {}, "param_groups": []},
        }
        torch.save(state, tmp_path / f"model={name}.pth")
    torch.save(
        {"state_dict": {"linear1.weight": torch.zeros(1, 8)}, "best_fid": 9.0},
        tmp_path / "model=D-best-weights-step=900.pth",
    )
    network = load_generator(tmp_path)
    assert network.classes is None and "loaded model=G_ema-best-weights-step=900.pth" in network.notes[-1]
    assert load_generator(tmp_path, AuditConfig(weights="raw")).classes == CLASSES


def test_infogan_variants_are_refused(tmp_path: Path) -> None:
    state = {**StudioGan("resnet").state_dict(), "info_mix_linear.weight": torch.zeros(DIM, DIM + 4)}
    torch.save({"state_dict": state}, tmp_path / "model=G-best-weights-step=1.pth")
    with pytest.raises(LoadError, match="InfoGAN variant"):
        load_generator(tmp_path / "model=G-best-weights-step=1.pth")


def test_a_flag_decides_between_classes_and_chunks_of_the_same_size(tmp_path: Path) -> None:
    """resnet with K one-hot classes and big_resnet with chunks of K latents have the same shapes."""
    net = StudioGan("big_resnet", classes=None)
    torch.save({"state_dict": net.state_dict()}, tmp_path / "G.pth")
    assert load_generator(tmp_path / "G.pth").subject["family"] == "StudioGAN big_resnet"
    network = load_generator(tmp_path / "G.pth", AuditConfig(classes=3))
    assert (network.subject["family"], network.classes, network.latent.dim) == ("StudioGAN resnet", 3, 3)
