"""Random small generators, saved as bare state dicts: read exactly, declared open, or wrong and confident.

The architecture is drawn at random (kind, norm, activation, upsampling, size, prior, names), the network is trained for
a few steps towards smoothed noise, so that its statistics settle, and the file is read without any flag. "exact": the
same samples from the same latents (to 1e-4; "same": to 5 % of their standard deviation), and the same prior. "open":
the reading says so, or is refused with what is missing. "wrong": anything else. Develop on seeds below 1,000, report on
others.

    python -m benchmarks random-architectures --seeds 1000:1040
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gandiag.checkpoints.confidence import assess_confidence
from gandiag.checkpoints.loader import load_generator
from gandiag.errors import LoadError

LATENT = 16
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky:0.2": lambda: nn.LeakyReLU(0.2),
    "leaky:0.01": nn.LeakyReLU,
    "leaky:0.3": lambda: nn.LeakyReLU(0.3),
    "elu": nn.ELU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
NORMS = ("batch", "batch", "batch", "batch0.8", "none", "instance", "pixel")
PRIORS: dict[str, Callable[..., Tensor]] = {
    "normal": torch.randn,
    "uniform": lambda *shape: 2 * torch.rand(*shape) - 1,
    "unit": torch.rand,
}


class PixelNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


@dataclass(frozen=True, slots=True)
class Drawn:
    """A random architecture. `named`: its layers are attributes, so that the file does not tell what lies between."""

    kind: str
    norm: str
    activation: str
    prior: str
    widths: tuple[int, ...]
    named: bool
    upsampling: str

    def make_norm(self, channels: int, *, spatial: bool) -> list[nn.Module]:
        if self.norm.startswith("batch"):
            eps = 0.8 if self.norm == "batch0.8" else 1e-5
            return [nn.BatchNorm2d(channels, eps) if spatial else nn.BatchNorm1d(channels, eps)]
        if self.norm == "instance" and spatial:
            return [nn.InstanceNorm2d(channels)]
        return [PixelNorm()] if self.norm == "pixel" else []


def draw_architecture(rng: random.Random) -> Drawn:
    n_layers = rng.choice((2, 3))
    return Drawn(
        rng.choice(("mlp", "dcgan", "projected", "upsample")),
        rng.choice(NORMS),
        rng.choice(tuple(ACTIVATIONS)),
        rng.choice(tuple(PRIORS)),
        tuple(rng.choice((16, 24, 32, 48)) for _ in range(n_layers)),
        rng.random() < 0.3,
        rng.choice(("nearest", "bilinear")),
    )


def list_layers(drawn: Drawn) -> list[nn.Module]:
    """The layers of an architecture, in order."""
    act, widths = ACTIVATIONS[drawn.activation], drawn.widths
    layers: list[nn.Module] = []
    if drawn.kind == "mlp":
        for into, out in zip((LATENT, *widths), widths, strict=False):
            layers += [nn.Linear(into, out), *drawn.make_norm(out, spatial=False), act()]
        return [*layers, nn.Linear(widths[-1], 784), nn.Tanh()]
    if drawn.kind == "dcgan":
        for index, (into, out) in enumerate(zip((LATENT, *widths), widths, strict=False)):
            stride = (1, 0) if index == 0 else (2, 1)
            layers += [nn.ConvTranspose2d(into, out, 4, *stride), *drawn.make_norm(out, spatial=True), act()]
        return [*layers, nn.ConvTranspose2d(widths[-1], 3, 4, 2, 1), nn.Tanh()]
    layers = [nn.Linear(LATENT, widths[0] * 16), nn.Unflatten(1, (widths[0], 4, 4))]
    for into, out in itertools.pairwise(widths):
        if drawn.kind == "projected":
            up: list[nn.Module] = [nn.ConvTranspose2d(into, out, 4, 2, 1)]
        else:
            up = [nn.Upsample(scale_factor=2, mode=drawn.upsampling), nn.Conv2d(into, out, 3, padding=1)]
        layers += [*up, *drawn.make_norm(out, spatial=True), act()]
    last: list[nn.Module] = [nn.ConvTranspose2d(widths[-1], 3, 4, 2, 1)]
    if drawn.kind == "upsample":
        last = [nn.Conv2d(widths[-1], 3, 3, padding=1)]
    return [*layers, *last, nn.Tanh()]


class Generator(nn.Module):
    """The layers as one Sequential, or those with weights as attributes by name."""

    def __init__(self, drawn: Drawn) -> None:
        super().__init__()
        layers = list_layers(drawn)
        self.flat = drawn.kind != "dcgan"
        if not drawn.named:
            self.main = nn.Sequential(*layers)
            return
        for index, layer in enumerate(layers):
            if list(layer.parameters()):
                kind = "norm" if isinstance(layer, nn.modules.batchnorm._BatchNorm) else "layer"
                setattr(self, f"{kind}{index}", layer)
        object.__setattr__(self, "run_order", tuple(layers))

    def forward(self, z: Tensor) -> Tensor:
        x = z.flatten(1) if self.flat else z.reshape(len(z), -1, 1, 1)
        for layer in getattr(self, "run_order", None) or self.main:
            x = layer(x)
        return x


def train_briefly(net: nn.Module, drawn: Drawn, seed: int, steps: int = 60) -> nn.Module:
    """A few steps towards random smooth targets, then passes in which BatchNorm statistics settle."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    draw = PRIORS[drawn.prior]
    with torch.no_grad():
        shape = net.eval()(draw(2, LATENT)).shape[1:]
    basis = torch.randn(LATENT, 4 if len(shape) == 1 else 3 * 4 * 4)
    for _ in range(steps):
        z = draw(32, LATENT)
        target = torch.tanh(z @ basis)
        if len(shape) == 3:
            target = F.interpolate(target.view(-1, 3, 4, 4), size=shape[1:], mode="bilinear")
        else:
            target = target.repeat_interleave(shape[0] // 4, 1)
        loss = (net.train()(z) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for _ in range(60):
            net(draw(64, LATENT))
    return net.eval()


def judge_reading(net: nn.Module, drawn: Drawn, path: Path) -> tuple[str, str]:
    """(exact, same, open, refused or wrong; details)."""
    try:
        network = load_generator(path)
    except LoadError as error:
        return "refused", str(error.message)[:110]
    z = torch.randn(16, *network.latent.shape)
    with torch.no_grad():
        expected, actual = net(z).flatten(1), network.forward(z).flatten(1)
    error, is_same = float("inf"), False
    if expected.shape == actual.shape:
        error = float((expected - actual).abs().max())
        is_same = float((expected - actual).square().mean().sqrt()) < 0.05 * float(expected.std())
    confidence = assess_confidence(network)
    prior_right = network.latent.prior == drawn.prior
    detail = f"{confidence.word}: {confidence.grounds[:90]}; difference {error:.2g}; prior {network.latent.prior}"
    if confidence.word == "open":
        return "open", detail
    if prior_right and error <= 1e-4:
        return "exact", detail
    return ("same" if prior_right and is_same else "wrong"), detail


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", default="1000:1040", help="first:end")
    first, end = map(int, parser.parse_args().seeds.split(":"))
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    settleable: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, end):
            drawn = draw_architecture(random.Random(seed))
            torch.manual_seed(seed)
            net = train_briefly(Generator(drawn), drawn, seed)
            path = Path(folder) / f"{seed}.pt"
            torch.save(net.state_dict(), path)
            start = time.process_time()
            verdict, detail = judge_reading(net, drawn, path)
            counts[verdict] += 1
            if drawn.norm.startswith("batch"):
                settleable[verdict] += 1
            seconds = time.process_time() - start
            names = "named" if drawn.named else "numbered"
            setup = (
                f"{drawn.kind} {drawn.norm} {drawn.activation} {drawn.prior} {drawn.widths} {names} {drawn.upsampling}"
            )
            print(f"{seed} {verdict:7s} {seconds:5.1f} s  {setup}  ->  {detail}", flush=True)
    print("all:", dict(counts), " with BatchNorm:", dict(settleable))
    return int(counts["wrong"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
