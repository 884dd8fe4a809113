"""Random small generators, saved as bare state dicts: read exactly, declared open, or wrong and confident.

The architecture is drawn at random (kind, norm, activation, upsampling, size, prior, names, classes, a layer without
weights in the gaps), the network is trained for a few steps towards smoothed noise, so that its statistics settle, and
the file is read without any flag. "exact": the same samples from the same latents (to 1e-4; "same": to 5 % of their
standard deviation), and the same prior. "open": the reading says so, or is refused with what is missing. "wrong":
anything else. With `--audit` files that are not read exactly are audited against the true network's own samples:
"collapsed" is then a wrong verdict. Results are appended to `--out`, and seeds that are there are not run again.
Develop on seeds below 5,000, report on others.

    python -m benchmarks random-architectures --seeds 5000:5200 --audit --out results.jsonl
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
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

import gandiag
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
GAP_LAYERS: dict[str, Callable[[], nn.Module]] = {
    "avg-pool": lambda: nn.AvgPool2d(2),
    "max-pool": lambda: nn.MaxPool2d(2),
    "smoothing": lambda: nn.AvgPool2d(3, 1, 1),
    "dropout": lambda: nn.Dropout(0.3),
}
CLASSES = 5
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
    """A random architecture.

    `named`: its layers are attributes, so that the file does not tell what lies between. `gap`: a layer without weights
    after the first block. `classes`: embedded and joined to the latents. `kernel`: of transposed convolutions.
    """

    kind: str
    norm: str
    activation: str
    prior: str
    widths: tuple[int, ...]
    named: bool
    upsampling: str
    gap: str = ""
    classes: int = 0
    kernel: int = 4

    @property
    def inputs(self) -> int:
        """Width of the first layer."""
        return LATENT + (8 if self.classes else 0)

    def make_gap(self, index: int) -> list[nn.Module]:
        return [GAP_LAYERS[self.gap]()] if self.gap and index == 0 else []

    def make_norm(self, channels: int, *, spatial: bool) -> list[nn.Module]:
        if self.norm.startswith("batch"):
            eps = 0.8 if self.norm == "batch0.8" else 1e-5
            return [nn.BatchNorm2d(channels, eps) if spatial else nn.BatchNorm1d(channels, eps)]
        if self.norm == "instance" and spatial:
            return [nn.InstanceNorm2d(channels)]
        return [PixelNorm()] if self.norm == "pixel" else []


def draw_architecture(rng: random.Random) -> Drawn:
    n_layers = rng.choice((2, 3))
    kind = rng.choice(("mlp", "dcgan", "projected", "upsample"))
    return Drawn(
        kind,
        rng.choice(NORMS),
        rng.choice(tuple(ACTIVATIONS)),
        rng.choice(tuple(PRIORS)),
        tuple(rng.choice((16, 24, 32, 48)) for _ in range(n_layers)),
        rng.random() < 0.3,
        rng.choice(("nearest", "bilinear")),
        rng.choice(tuple(GAP_LAYERS)) if kind not in ("mlp", "dcgan") and rng.random() < 0.25 else "",
        CLASSES if kind in ("mlp", "projected") and rng.random() < 0.25 else 0,
        rng.choice((3, 4, 4)),
    )


def list_layers(drawn: Drawn) -> list[nn.Module]:
    """The layers of an architecture, in order."""
    act, widths = ACTIVATIONS[drawn.activation], drawn.widths
    layers: list[nn.Module] = []
    if drawn.kind == "mlp":
        for into, out in zip((drawn.inputs, *widths), widths, strict=False):
            layers += [nn.Linear(into, out), *drawn.make_norm(out, spatial=False), act()]
        return [*layers, nn.Linear(widths[-1], 784), nn.Tanh()]
    if drawn.kind == "dcgan":
        for index, (into, out) in enumerate(zip((LATENT, *widths), widths, strict=False)):
            stride = (1, 0) if index == 0 else (2, 1)
            layers += [nn.ConvTranspose2d(into, out, 4, *stride), *drawn.make_norm(out, spatial=True), act()]
        return [*layers, nn.ConvTranspose2d(widths[-1], 3, 4, 2, 1), nn.Tanh()]
    layers = [nn.Linear(drawn.inputs, widths[0] * 16), nn.Unflatten(1, (widths[0], 4, 4))]
    doubling = (3, 2, 1, 1) if drawn.kernel == 3 else (4, 2, 1)
    for index, (into, out) in enumerate(itertools.pairwise(widths)):
        if drawn.kind == "projected":
            up: list[nn.Module] = [nn.ConvTranspose2d(into, out, *doubling)]
        else:
            up = [nn.Upsample(scale_factor=2, mode=drawn.upsampling), nn.Conv2d(into, out, 3, padding=1)]
        layers += [*up, *drawn.make_norm(out, spatial=True), act(), *drawn.make_gap(index)]
    last: list[nn.Module] = [nn.ConvTranspose2d(widths[-1], 3, *doubling)]
    if drawn.kind == "upsample":
        last = [nn.Conv2d(widths[-1], 3, 3, padding=1)]
    return [*layers, *last, nn.Tanh()]


class Generator(nn.Module):
    """The layers as one Sequential, or those with weights as attributes by name."""

    def __init__(self, drawn: Drawn) -> None:
        super().__init__()
        layers = list_layers(drawn)
        self.flat = drawn.kind != "dcgan"
        if drawn.classes:
            self.label_embedding = nn.Embedding(drawn.classes, 8)
        if not drawn.named:
            self.main = nn.Sequential(*layers)
            return
        for index, layer in enumerate(layers):
            if list(layer.parameters()):
                kind = "norm" if isinstance(layer, nn.modules.batchnorm._BatchNorm) else "layer"
                setattr(self, f"{kind}{index}", layer)
        object.__setattr__(self, "run_order", tuple(layers))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x = z.flatten(1)
        if labels is not None:
            x = torch.cat([x, self.label_embedding(labels)], 1)
        x = x if self.flat else x[:, :, None, None]
        for layer in getattr(self, "run_order", None) or self.main:
            x = layer(x)
        return x


def draw_labels(drawn: Drawn, n: int) -> Tensor | None:
    """Random classes (n,), None for an unconditional network."""
    return torch.randint(drawn.classes, (n,)) if drawn.classes else None


def train_briefly(net: nn.Module, drawn: Drawn, seed: int, steps: int = 60) -> nn.Module:
    """A few steps towards random smooth targets, then passes in which BatchNorm statistics settle."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    draw = PRIORS[drawn.prior]
    with torch.no_grad():
        shape = net.eval()(draw(2, LATENT), draw_labels(drawn, 2)).shape[1:]
    basis = torch.randn(LATENT, 4 if len(shape) == 1 else 3 * 4 * 4)
    for _ in range(steps):
        z = draw(32, LATENT)
        target = torch.tanh(z @ basis)
        if len(shape) == 3:
            target = F.interpolate(target.view(-1, 3, 4, 4), size=shape[1:], mode="bilinear")
        else:
            target = target.repeat_interleave(shape[0] // 4, 1)
        loss = (net.train()(z, draw_labels(drawn, 32)) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for _ in range(60):
            net(draw(64, LATENT), draw_labels(drawn, 64))
    return net.eval()


def judge_reading(net: nn.Module, drawn: Drawn, path: Path) -> tuple[str, str]:
    """(exact, same, open, refused or wrong; details)."""
    try:
        network = load_generator(path)
    except LoadError as error:
        return "refused", str(error.message)[:110]
    z = torch.randn(16, *network.latent.shape)
    labels = torch.arange(16) % drawn.classes if drawn.classes else None
    error, is_same = float("inf"), False
    if network.classes == (drawn.classes or None):
        with torch.no_grad():
            expected, actual = net(z, labels).flatten(1), network.forward(z, labels).flatten(1)
        if expected.shape == actual.shape:
            error = float((expected - actual).abs().max())
            is_same = float((expected - actual).square().mean().sqrt()) < 0.05 * float(expected.std())
    confidence = assess_confidence(network)
    prior_right = network.latent.prior == drawn.prior
    detail = f"{confidence.word}: {confidence.grounds[:90]}; difference {error:.2g}; prior {network.latent.prior}"
    if prior_right and error <= 1e-4:
        return ("exact" if confidence.word != "open" else "open, exact"), detail
    if confidence.word == "open":
        return "open", detail
    return ("same" if prior_right and is_same else "wrong"), detail


def judge_audit(net: nn.Module, drawn: Drawn, path: Path, n: int = 100) -> str:
    """The verdict on a file against the samples of the true network, which has all of their variety."""
    torch.manual_seed(1)
    with torch.no_grad():
        real = net(PRIORS[drawn.prior](2 * n, LATENT), draw_labels(drawn, 2 * n))
    if real.ndim == 2:
        real = real.view(-1, 1, 28, 28)
    try:
        return gandiag.audit(path, real.clamp(-1, 1), n=n, budget="quick", exhibits=False).verdict
    except LoadError:
        return "refused"


def run_seed(seed: int, folder: Path, *, audit: bool) -> dict[str, object]:
    """Draw, train, save and read one network; audit it where it is not read exactly."""
    drawn = draw_architecture(random.Random(seed))
    torch.manual_seed(seed)
    net = train_briefly(Generator(drawn), drawn, seed)
    path = folder / f"{seed}.pt"
    torch.save(net.state_dict(), path)
    start = time.process_time()
    reading, detail = judge_reading(net, drawn, path)
    seconds = time.process_time() - start
    verdict = judge_audit(net, drawn, path) if audit and reading not in ("exact", "refused") else ""
    return {
        "seed": seed,
        "reading": reading,
        "verdict": verdict,
        "seconds": round(seconds, 2),
        "settleable": drawn.norm.startswith("batch"),
        "detail": detail,
        "drawn": dataclasses.asdict(drawn),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", default="5000:5040", help="first:end")
    parser.add_argument("--audit", action="store_true", help="audit what is not read exactly")
    parser.add_argument("--out", default="", help="file that results are appended to")
    arguments = parser.parse_args()
    first, end = map(int, arguments.seeds.split(":"))
    torch.set_num_threads(1)
    out = Path(arguments.out) if arguments.out else None
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out and out.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        for seed in sorted({*range(first, end)} - {row["seed"] for row in rows}):
            row = run_seed(seed, Path(folder), audit=arguments.audit)
            rows.append(row)
            print(json.dumps(row), flush=True)
            if out:
                with out.open("a") as stream:
                    stream.write(json.dumps(row) + "\n")
    counts = Counter(row["reading"] for row in rows)
    settleable = Counter(row["reading"] for row in rows if row["settleable"])
    verdicts = Counter(row["verdict"] for row in rows)
    print("all:", dict(counts), " with BatchNorm:", dict(settleable), " verdicts:", dict(verdicts))
    return int(counts["wrong"] > 0 or verdicts["collapsed"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
