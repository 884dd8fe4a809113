"""How often BatchNorm statistics identify the hyperparameters that a state dict does not name.

    python -m benchmarks batchnorm-inference [--first 500] [--count 25] [--keep DIR]

Small generators (`small_generators`) are trained against small critics on digits. Only their weights and statistics are
saved, then read like any file; those with interpolation are read a second time under names that do not show where
anything stands between the layers. Per hyperparameter: how often the chosen value is the truth or functionally equal to
it (samples within 5 % of their std on the same latents); how often it was decided so; how often it was left undecided;
and how often it was decided wrongly. Rare layouts and activations are more frequent than in the wild, and after a few
hundred steps the statistics still lag behind the weights.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from small_generators import RISES, STRIDES, Truth, latents, train, unnumbered
from torch import nn

from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.checkpoints.inference.conv_geometry import format_stride
from gandiag.checkpoints.inference.sequential import format_module_strides
from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption
from gandiag.report.assumptions import assumption_label, assumption_source, assumption_value

SIZE = "size of the picture"


@dataclass(frozen=True)
class Judged:
    """Is what is named right, does the file itself or batch norm leave it undecided, and what was said."""

    right: bool
    asked: bool
    said: str


def judged(truth: Truth, net: nn.Module, network: LoadedGenerator) -> dict[str, Judged]:
    """Question -> how it was answered."""
    assumptions = {entry.setting: entry for entry in network.assumptions}
    equal = _alike(truth, net, network)
    results = {}
    expected = {"activation": truth.activation, "bn_eps": truth.eps, "prior": truth.prior}
    for setting, value in expected.items():
        entry = assumptions[setting]
        uncommon = setting == "activation" and value not in ("relu", "leaky:0.2")
        right = entry.value == value or (equal and setting != "prior")
        name = "uncommon activation" if uncommon else assumption_label(entry)
        results[name] = Judged(right, entry.undecided, _describe(entry))
    if truth.layers in STRIDES:
        entries = [entry for entry in network.assumptions if entry.setting == "strides"]
        start, layers = STRIDES[truth.layers]
        # Strides that start from one pixel do not matter, and no BatchNorm follows the last layer.
        strides = tuple(format_stride(geometry) for _, *geometry in layers[start == 1 :])
        right = format_module_strides(network.module)[:-1] == strides[:-1]
        text = "; ".join(_describe(entry) for entry in entries)
        undecided = any(entry.undecided for entry in entries)
        results["strides"] = Judged(right or equal, undecided, text)
        results[SIZE] = Judged(network.output.shape[-1] == _side(truth, net), undecided, text)
    if truth.layers in RISES:
        entry = assumptions["pixel_shuffle_order" if truth.layers == "shuffle" else "upsampling"]
        results["upsampling"] = Judged(equal, entry.undecided, _describe(entry))
        results[SIZE] = Judged(network.output.shape[-1] == _side(truth, net), entry.undecided, _describe(entry))
    if truth.dropout is not None:
        entry = assumptions["dropout"]
        near = abs(entry.value - truth.dropout) <= 0.101
        results["dropout (to 0.1; none at inference)"] = Judged(near, "undecided" in entry.note, _describe(entry))
    return results


def _describe(entry: Assumption) -> str:
    return f"{assumption_value(entry)} [{assumption_source(entry)}]"


def _side(truth: Truth, net: nn.Module) -> int:
    with torch.no_grad():
        return int(net(latents(truth, 2)).shape[-1])


def _alike(truth: Truth, net: nn.Module, network: LoadedGenerator) -> bool:
    """Do both make the same samples of the same latents?"""
    with torch.no_grad():
        torch.manual_seed(0)
        z = latents(truth, 64)
        mine, theirs = net(z).flatten(1), network.forward(z.reshape(64, *network.latent.shape)).flatten(1)
    return mine.shape == theirs.shape and float((mine - theirs).square().mean().sqrt()) <= 0.05 * float(mine.std())


def read(truth: Truth, net: nn.Module, path: Path) -> dict[str, Judged]:
    """One file; where it asks for the size of the picture, read again with the size that it names first."""
    try:
        return judged(truth, net, load_generator(path))
    except LoadError as problem:
        named = re.search(r"--image-size (\d+)", problem.hint)
        if named is None:
            print(f"{truth}\n   refused: {problem.message}")
            return {
                name: Judged(False, True, problem.message)
                for name in ("strides" if truth.layers in STRIDES else "upsampling", SIZE)
            }
        found = judged(truth, net, load_generator(path, AuditConfig(image_size=int(named[1]))))
        asked = {
            name: Judged(found[name].right, True, problem.message)
            for name in ("strides", "upsampling")
            if name in found
        }
        return {**found, **asked, SIZE: Judged(int(named[1]) == _side(truth, net), True, problem.message)}


def study(truth: Truth, path: Path, steps: int) -> dict[str, Judged]:
    """Everything that is asked of one generator, which is trained unless `path` holds it."""
    net = truth.build()
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
    else:
        net = train(truth, steps)
        torch.save(net.state_dict(), path)
    net.eval()
    found = read(truth, net, path)
    if truth.layers in RISES:
        bare = path.with_suffix(".unnumbered")
        torch.save(unnumbered(truth, dict(net.state_dict())), bare)
        again = read(truth, net, bare)
        found["upsampling, no numbers"] = again["upsampling"]
        if truth.layers == "shuffle":  # shapes say it
            del found[SIZE]
            return found
        found[SIZE] = again[SIZE]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Does batch norm tell what the weights leave open?")
    parser.add_argument("--count", type=int, default=25)
    parser.add_argument("--first", type=int, default=500, help="seed of the first generator")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--keep", type=Path, help="folder for the trained files; those already there are used")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for seed in range(options.first, options.first + options.count):
            truth = Truth.drawn(seed)
            for name, one in study(truth, folder / f"{seed}_{options.steps}.pt", options.steps).items():
                row = table.setdefault(name, Counter())
                row.update(
                    ["all"]
                    + ["named"] * one.right
                    + ["decided"] * (one.right and not one.asked)
                    + ["wrong"] * (not one.right and not one.asked)
                )
                row.update(["asked"] * one.asked)
                if one.asked or not one.right:
                    print(
                        f"{truth}\n   {name}, {'right' if one.right else 'wrong'}{', asked' * one.asked}: {one.said}",
                        flush=True,
                    )
    print(f"\n{'question':<32} {'named rightly':>14} {'decided rightly':>16} {'asked':>6} {'decided wrongly':>16}")
    for name, row in sorted(table.items()):
        print(
            f"{name:<32} {row['named']:>6} of {row['all']:<4} {row['decided']:>16} {row['asked']:>6} {row['wrong']:>16}"
        )


if __name__ == "__main__":
    main()
