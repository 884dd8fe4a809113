"""Small random generators trained on digits in seconds, with known hyperparameters: the truths of
`batchnorm_inference`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

NZ, WIDTH, BATCH = 16, 16, 64
HIDDEN = {
    "relu": nn.ReLU,
    "leaky:0.2": lambda: nn.LeakyReLU(0.2),
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
# Resolution behind the linear layer (1: a kernel takes z), then (kernel, stride, padding, output padding): the layouts
# of DCGAN, a deeper one, two courses, three repositories and two tutorials, to 16, 24, 28 and 32 pixels.
STRIDES = {
    "classic": (1, [(4, 1, 0, 0), (4, 2, 1, 0), (4, 2, 1, 0)]),
    "growing": (1, [(3, 1, 0, 0), (4, 1, 0, 0), (3, 2, 0, 0), (4, 2, 0, 0)]),
    "punks": (1, [(4, 1, 0, 0), (3, 1, 0, 0), (3, 2, 1, 0), (4, 2, 0, 0), (4, 2, 1, 0)]),
    "three": (1, [(4, 1, 0, 0), (3, 2, 1, 0), (4, 2, 1, 0), (4, 2, 1, 0)]),
    "seven": (1, [(7, 1, 0, 0), (4, 2, 1, 0), (4, 2, 1, 0)]),
    "five": (1, [(4, 1, 0, 0), (5, 2, 2, 1), (5, 2, 2, 1)]),
    "slow": (1, [(4, 1, 0, 0), (4, 1, 0, 0), (4, 2, 1, 0), (4, 2, 1, 0)]),
    "tutorial": (7, [(5, 1, 2, 0), (5, 2, 2, 1), (5, 2, 2, 1)]),
    "deep": (1, [(4, 1, 0, 0), (4, 2, 1, 0), (4, 2, 1, 0), (4, 2, 1, 0)]),
    "doubled": (4, [(3, 2, 1, 1), (3, 2, 1, 1), (3, 2, 1, 1)]),
}
RISES = ("nearest", "bilinear", "shuffle")


@dataclass(frozen=True)
class Truth:
    """What a generator is.

    `layers`: strides by name, "nearest", "bilinear", "shuffle" or "flat"; `bare`: no activation behind the first
    norm.
    """

    seed: int
    layers: str
    activation: str
    eps: float
    prior: str
    dropout: float | None
    bare: bool = False

    @classmethod
    def drawn(cls, seed: int) -> Truth:
        """Of ten in turn four have strides, four interpolate, one shuffles pixels, one is flat; all else by a coin of
        that seed.
        """
        rng = random.Random(seed)
        kind = (
            "strides",
            "resized",
            "strides",
            "flat",
            "resized",
            "strides",
            "resized",
            "shuffle",
            "strides",
            "resized",
        )[seed % 10]
        layers = {"strides": rng.choice(list(STRIDES)), "resized": rng.choice(["nearest", "bilinear"])}.get(kind, kind)
        activation = (
            rng.choice(["relu", "leaky:0.2"]) if rng.random() < 0.6 else rng.choice(["gelu", "elu", "silu", "tanh"])
        )
        dropout = rng.choice([None, 0.0, 0.2, 0.3, 0.5]) if kind == "strides" else None
        prior = rng.choice(["normal", "normal", "uniform", "unit"])
        return cls(
            seed, layers, activation, rng.choice([1e-5, 0.8]), prior, dropout, kind == "resized" and rng.random() < 0.4
        )

    @property
    def spatial(self) -> bool:
        """Do latents carry two axes of size 1?"""
        return self.layers in STRIDES and STRIDES[self.layers][0] == 1

    def build(self) -> nn.Sequential:
        torch.manual_seed(self.seed)
        if self.layers == "flat":
            return _flat(self)
        return _resized(self) if self.layers in RISES else _transposed(self)


def _behind(truth: Truth) -> list[nn.Module]:
    return [HIDDEN[truth.activation](), *([] if truth.dropout is None else [nn.Dropout(truth.dropout)])]


def _flat(truth: Truth) -> nn.Sequential:
    parts: list[nn.Module] = []
    for into, out in ((NZ, 64), (64, 128), (128, 128)):
        parts += [nn.Linear(into, out), nn.BatchNorm1d(out, truth.eps), *_behind(truth)]
    return nn.Sequential(*parts, nn.Linear(128, 256), nn.Tanh(), nn.Unflatten(1, (1, 16, 16)))


def _transposed(truth: Truth) -> nn.Sequential:
    side, kernels = STRIDES[truth.layers]
    into, parts = NZ, list[nn.Module]()
    if side > 1:
        into = WIDTH << (len(kernels) - 1)
        parts += [
            nn.Linear(NZ, into * side**2, bias=False),
            nn.BatchNorm1d(into * side**2, truth.eps),
            *_behind(truth),
            nn.Unflatten(1, (into, side, side)),
        ]
    for index, (kernel, stride, padding, extra) in enumerate(kernels):
        last = index == len(kernels) - 1
        out = 1 if last else max(8, WIDTH << (len(kernels) - 2 - index))
        parts += [nn.ConvTranspose2d(into, out, kernel, stride, padding, extra, bias=last)]
        parts += [nn.Tanh()] if last else [nn.BatchNorm2d(out, truth.eps), *_behind(truth)]
        into = out
    return nn.Sequential(*parts)


def _resized(truth: Truth) -> nn.Sequential:
    """A linear layer, a reshape, two doublings; `bare` has the layout, and the one ordinary norm, of a much-copied
    DCGAN.
    """
    wide = 24
    more = 4 if truth.layers == "shuffle" else 1

    def doubling() -> nn.Module:
        return nn.PixelShuffle(2) if more == 4 else nn.Upsample(scale_factor=2, mode=truth.layers)

    head = [nn.BatchNorm2d(wide)] if truth.bare else [nn.BatchNorm2d(wide, truth.eps), *_behind(truth)]
    if more == 4:  # convolution, shuffle, norm
        body = [
            *head,
            nn.Conv2d(wide, 4 * wide, 3, 1, 1),
            doubling(),
            nn.BatchNorm2d(wide, truth.eps),
            *_behind(truth),
            nn.Conv2d(wide, 2 * wide, 3, 1, 1),
            doubling(),
            nn.BatchNorm2d(wide // 2, truth.eps),
            *_behind(truth),
        ]
    else:
        body = [
            *head,
            doubling(),
            nn.Conv2d(wide, wide, 3, 1, 1),
            nn.BatchNorm2d(wide, truth.eps),
            *_behind(truth),
            doubling(),
            nn.Conv2d(wide, wide // 2, 3, 1, 1),
            nn.BatchNorm2d(wide // 2, truth.eps),
            *_behind(truth),
        ]
    net = nn.Sequential()
    blocks = nn.Sequential(*body, nn.Conv2d(wide // 2, 1, 3, 1, 1), nn.Tanh())
    for name, part in (("l1", nn.Linear(NZ, wide * 16)), ("shape", nn.Unflatten(1, (wide, 4, 4))), ("blocks", blocks)):
        net.add_module(name, part)
    return net


def latents(truth: Truth, n: int) -> Tensor:
    """n latents of a generator's own prior, in the shape that it takes."""
    z = (
        torch.randn(n, NZ)
        if truth.prior == "normal"
        else torch.rand(n, NZ)
        if truth.prior == "unit"
        else 2 * torch.rand(n, NZ) - 1
    )
    return z[:, :, None, None] if truth.spatial else z


def train(truth: Truth, steps: int) -> nn.Sequential:
    """Non-saturating loss, Adam with beta_1 = 0.5; weights drawn as for DCGAN."""
    net = truth.build()
    with torch.no_grad():
        side = net(latents(truth, 2)).shape[-1]
    for part in net.modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(part.weight, 0, 0.05)
    digits = F.interpolate(
        torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 8 - 1, (side, side), mode="bilinear"
    )
    wide = (side // 4) ** 2 * 32
    critic = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(wide, 1),
    )
    slow, fast = (
        torch.optim.Adam(net.parameters(), 5e-4, (0.5, 0.999)),
        torch.optim.Adam(critic.parameters(), 5e-4, (0.5, 0.999)),
    )
    for _ in range(steps):
        real, fake = digits[torch.randint(len(digits), (BATCH,))], net(latents(truth, BATCH))
        fast.zero_grad()
        (F.softplus(-critic(real)).mean() + F.softplus(critic(fake.detach())).mean()).backward()
        fast.step()
        slow.zero_grad()
        F.softplus(-critic(fake)).mean().backward()
        slow.step()
    return net.eval()


def unnumbered(truth: Truth, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights as a class would name them that calls its activations and interpolations as functions: nothing
    tells where they stand.
    """
    names: dict[str, str] = {}
    counts = {"linear": 0, "conv": 0, "norm": 0}
    for name, part in truth.build().named_modules():
        kind = (
            "linear"
            if isinstance(part, nn.Linear)
            else "conv"
            if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d))
            else "norm"
        )
        if any(True for _ in part.parameters(recurse=False)):
            counts[kind] += 1
            names[name] = f"{kind}{counts[kind]}"
    return {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in state.items()}
