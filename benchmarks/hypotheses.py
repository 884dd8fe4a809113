"""Does batch norm tell what the weights leave open? `python benchmarks/hypotheses.py [--count 40] [--keep DIR]`.

Small generators are trained against small critics on digits (seconds each, one thread), with activation, prior, eps, dropout,
strides, and place and kind of upsampling drawn at random. Only their weights and statistics are saved, and read as any file is.
Per question: how many were read as they are, or as their functional equal (samples within 5 % of their deviation on the same
latents); how many of them clearly (margin of 2); how many were decided, and wrongly; how many were left undecided or asked.
The critic's activation and the learning rates are usual ones; 300 steps leave statistics that still lag behind the weights.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from gandiag.errors import LoadError
from gandiag.load.generator import Network, load_network

NZ, WIDTH, BATCH = 16, 16, 64
HIDDEN = {"relu": nn.ReLU, "leaky:0.2": lambda: nn.LeakyReLU(0.2), "gelu": nn.GELU, "elu": nn.ELU, "silu": nn.SiLU, "tanh": nn.Tanh}
# first kernel, then (kernel, stride, padding, output padding): DCGAN, deeper, two courses' and three repositories' ways to 28, 24 and 16 pixels
STRIDES = {
    "classic": (4, [(4, 2, 1, 0), (4, 2, 1, 0)]), "deep": (4, [(4, 2, 1, 0), (4, 2, 1, 0), (4, 2, 1, 0)]),
    "growing": (3, [(4, 1, 0, 0), (3, 2, 0, 0), (4, 2, 0, 0)]), "punks": (4, [(3, 1, 0, 0), (3, 2, 1, 0), (4, 2, 0, 0), (4, 2, 1, 0)]),
    "three": (4, [(3, 2, 1, 0), (4, 2, 1, 0), (4, 2, 1, 0)]), "seven": (7, [(4, 2, 1, 0), (4, 2, 1, 0)]),
    "five": (4, [(5, 2, 2, 1), (5, 2, 2, 1)]), "slow": (4, [(4, 1, 0, 0), (4, 2, 1, 0), (4, 2, 1, 0)]),
}  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """What a generator is. `layers`: strides by name, "nearest", "bilinear", or "flat"; `bare`: no activation behind the first norm."""

    seed: int
    layers: str
    activation: str
    eps: float
    prior: str
    dropout: float | None
    bare: bool = False

    @classmethod
    def drawn(cls, seed: int) -> Truth:
        rng = random.Random(seed)
        kind = ("strides", "strides", "upsampled", "flat", "upsampled")[seed % 5]
        layers = {"strides": list(STRIDES)[(seed // 5 * 2 + seed % 5) % len(STRIDES)], "upsampled": rng.choice(["nearest", "bilinear"]), "flat": "flat"}[kind]
        common = rng.choice(["relu", "leaky:0.2"]) if rng.random() < 0.75 else rng.choice(["gelu", "elu", "silu", "tanh"])
        dropout = rng.choice([None, 0.0, 0.2, 0.3, 0.5]) if kind == "strides" else None
        return cls(seed, layers, common, rng.choice([1e-5, 0.8]), rng.choice(["normal", "uniform"]), dropout, kind == "upsampled" and seed % 2 == 0)

    def build(self) -> nn.Sequential:
        torch.manual_seed(self.seed)
        if self.layers == "flat":
            return _flat(self)
        return _upsampled(self) if self.layers in ("nearest", "bilinear") else _transposed(self)


def _behind(truth: Truth) -> list[nn.Module]:
    return [HIDDEN[truth.activation](), *([] if truth.dropout is None else [nn.Dropout(truth.dropout)])]


def _flat(truth: Truth) -> nn.Sequential:
    parts: list[nn.Module] = []
    for into, out in ((NZ, 64), (64, 128), (128, 128)):
        parts += [nn.Linear(into, out), nn.BatchNorm1d(out, truth.eps), *_behind(truth)]
    return nn.Sequential(*parts, nn.Linear(128, 256), nn.Tanh(), nn.Unflatten(1, (1, 16, 16)))


def _transposed(truth: Truth) -> nn.Sequential:
    first, rest = STRIDES[truth.layers]
    parts: list[nn.Module] = []
    into = NZ
    for index, (kernel, stride, padding, extra) in enumerate([(first, 1, 0, 0), *rest]):
        last = index == len(rest)
        out = 1 if last else max(8, WIDTH << (len(rest) - 1 - index))
        parts += [nn.ConvTranspose2d(into, out, kernel, stride, padding, extra, bias=last)]
        parts += [nn.Tanh()] if last else [nn.BatchNorm2d(out, truth.eps), *_behind(truth)]
        into = out
    return nn.Sequential(*parts)


def _upsampled(truth: Truth) -> nn.Sequential:
    """A linear layer, a reshape, two doublings; `bare` has the layout, and the one ordinary norm, of a much-copied DCGAN."""
    def doubling() -> nn.Module:
        return nn.Upsample(scale_factor=2, mode=truth.layers)

    wide = 24
    head = [nn.BatchNorm2d(wide)] if truth.bare else [nn.BatchNorm2d(wide, truth.eps), *_behind(truth)]
    blocks = nn.Sequential(*head, doubling(), nn.Conv2d(wide, wide, 3, 1, 1), nn.BatchNorm2d(wide, truth.eps), *_behind(truth),
                           doubling(), nn.Conv2d(wide, wide // 2, 3, 1, 1), nn.BatchNorm2d(wide // 2, truth.eps), *_behind(truth),
                           nn.Conv2d(wide // 2, 1, 3, 1, 1), nn.Tanh())  # fmt: skip
    net = nn.Sequential()
    for name, part in (("l1", nn.Linear(NZ, wide * 16)), ("shape", nn.Unflatten(1, (wide, 4, 4))), ("blocks", blocks)):
        net.add_module(name, part)
    return net


def latents(truth: Truth, n: int) -> Tensor:
    z = torch.randn(n, NZ) if truth.prior == "normal" else 2 * torch.rand(n, NZ) - 1
    return z if truth.layers in ("flat", "nearest", "bilinear") else z[:, :, None, None]


def train(truth: Truth, steps: int) -> nn.Sequential:
    """Non-saturating loss, Adam with beta_1 = 0.5; weights drawn as for DCGAN."""
    net = truth.build()
    with torch.no_grad():
        side = net(latents(truth, 2)).shape[-1]
    for part in net.modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(part.weight, 0, 0.05)
    digits = F.interpolate(torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 8 - 1, (side, side), mode="bilinear")
    wide = (side // 4) ** 2 * 32
    critic = nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(wide, 1))
    slow, fast = torch.optim.Adam(net.parameters(), 5e-4, (0.5, 0.999)), torch.optim.Adam(critic.parameters(), 5e-4, (0.5, 0.999))
    for _ in range(steps):
        real, fake = digits[torch.randint(len(digits), (BATCH,))], net(latents(truth, BATCH))
        fast.zero_grad()
        (F.softplus(-critic(real)).mean() + F.softplus(critic(fake.detach())).mean()).backward()
        fast.step()
        slow.zero_grad()
        F.softplus(-critic(fake)).mean().backward()
        slow.step()
    return net.eval()


def judged(truth: Truth, net: nn.Module, network: Network) -> dict[str, tuple[bool, str]]:
    """Question -> (read as it is, or as its functional equal; who said so)."""
    said = {entry.what.split(" (")[0]: entry for entry in network.assumptions}
    with torch.no_grad():
        torch.manual_seed(0)
        z = latents(truth, 64)
        mine, theirs = net(z).flatten(1), network.forward(z.reshape(64, *network.latent.shape)).flatten(1)
    equal = mine.shape == theirs.shape and float((mine - theirs).square().mean().sqrt()) <= 0.05 * float(mine.std())
    found = {}
    asked = {"activation": ("hidden activation", truth.activation), "eps": ("batch-norm eps", f"{truth.eps:g}"), "prior": ("latent prior", truth.prior)}
    for name, (what, true) in asked.items():
        right = said[what].value.split(" ")[0] == true
        found[name if name != "activation" or true in ("relu", "leaky:0.2") else "rarer activation"] = right or (equal and name != "prior"), said[what].source
    if truth.layers in STRIDES:
        _, rest = STRIDES[truth.layers]
        places = [entry for what, entry in said.items() if what.startswith("stride and padding of")]
        told = [entry.value.split(" ")[0] for entry in places]
        right = told == [f"k{k}s{s}p{p}" + (f"+{extra}" if extra else "") for k, s, p, extra in rest[: len(told)]]
        found["strides"] = right or equal, "undecided" if any(entry.source == "undecided" for entry in places) else "batch-norm"
    if truth.layers in ("nearest", "bilinear"):
        right = said["upsampling"].value.startswith(f"{truth.layers}, before blocks.{1 + (not truth.bare) + 1}")
        found["upsampling"] = right or equal, said["upsampling"].source
    if truth.dropout is not None:
        entry = said["dropout in training, none in use"]
        found["dropout (to 0.1)"] = abs(float(entry.value.split(" ")[0]) - truth.dropout) <= 0.101, entry.source
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Does batch norm tell what the weights leave open?")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--first", type=int, default=0, help="seed of the first generator")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--keep", type=Path, help="folder for the trained files; those already there are used")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        table: dict[str, Counter[str]] = {}
        for seed in range(options.first, options.first + options.count):
            read(Truth.drawn(seed), folder / f"{seed}_{options.steps}.pt", options.steps, table)
    print(f"\n{'question':<20} {'read rightly':>14} {'of them clearly':>16} {'decided wrongly':>16} {'asked':>6}")
    for name, row in sorted(table.items()):
        print(f"{name:<20} {row['right']:>7} of {row['all']:<4} {row['clear']:>15} {row['wrong']:>16} {row['asked']:>6}")


def read(truth: Truth, path: Path, steps: int, table: dict[str, Counter[str]]) -> None:
    net = truth.build()
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
    else:
        net = train(truth, steps)
        torch.save(net.state_dict(), path)
    net.eval()
    try:
        network = load_network(path)
    except LoadError as problem:
        table.setdefault("size of the picture", Counter()).update(["all", "asked"])
        print(f"{truth}\n   asked: {problem.what}; {problem.hint}")
        return
    for name, (right, source) in judged(truth, net, network).items():
        undecided = source == "undecided"
        row = table.setdefault(name, Counter())
        row.update(["all"] + ["right"] * right + ["clear"] * (right and not undecided) + ["wrong"] * (not right and not undecided) + ["asked"] * undecided)
        if not right:
            what = {"prior": "latent", "strides": "stride", "eps": "batch-norm"}.get(name, name.split(" ")[-1] if "activation" in name else name.split(" ")[0])
            print(f"{truth}\n   {name}: {'; '.join(f'{e.value} [{e.source}]' for e in network.assumptions if what in e.what)}")


if __name__ == "__main__":
    main()
