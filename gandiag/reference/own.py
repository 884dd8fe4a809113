"""Somebody's own networks under each remedy, for a budget: which one helps a model that has collapsed?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gandiag.config import AuditConfig
from gandiag.contracts import Latent
from gandiag.errors import ConfigError, GandiagError, LoadError
from gandiag.load.adapter import Adapted, adapt
from gandiag.load.factory import build
from gandiag.reference.adam import AdamSettings
from gandiag.reference.data import Dataset
from gandiag.reference.images import folder as samples_in
from gandiag.reference.objectives.remedies import remedy_called
from gandiag.reference.plan import Plan
from gandiag.reference.recipes import NetSettings, Recipe

TRIED = ("none", "minibatch-stddev", "minibatch", "packing", "unrolled", "r1", "relativistic", "spectral", "mode-seeking")
BUDGET = 2_000  # steps under each remedy
AHEAD = 5


@dataclass(frozen=True, slots=True)
class Own:
    """The networks of a person: `pkg.mod:G` and `pkg.mod:D`, with k=v arguments for both; each call makes a fresh one."""

    data: str
    generator: str
    discriminator: str
    init: tuple[str, ...] = ()

    def networks(self, pack: int) -> tuple[nn.Module, nn.Module]:
        """Fresh networks, D's first layer widened to `pack` samples."""
        judge = build(self.discriminator, self.init)
        return build(self.generator, self.init), judge if pack == 1 else packed(judge, pack)


def latent_of(own: Own) -> Latent:
    """What G's latents look like. LoadError where G cannot be called."""
    return _adapted(own).latent


def own_data(own: Own) -> Dataset:
    """The data as G would make them."""
    output = _adapted(own).output
    data = samples_in(own.data, output)
    if data.output.shape != output.shape:
        what = f"{own.data} holds samples of shape {data.output.shape}, and {own.generator} makes {output.shape}"
        raise LoadError(what, "give data and a generator of one shape")
    return data


def _adapted(own: Own) -> Adapted:
    with torch.random.fork_rng(devices=[]):
        return adapt(build(own.generator, own.init).eval(), AuditConfig())


def own_plan(own: Own, latent: Latent, remedy: str, ask: dict[str, Any]) -> Plan:
    """A plan for one remedy with common settings: Adam 2e-4, beta1 0.5, batch 64, non-saturating loss."""
    adam = AdamSettings(lr=2e-4, beta1=0.5)
    made = Recipe(name="own", title=f"{own.generator} against {own.discriminator}", source="your own networks", dataset=own.data, steps=BUDGET, batch=64,
                  latent=latent.dim, loss="non-saturating", generator=NetSettings(kind=own.generator), discriminator=NetSettings(kind=own.discriminator),
                  adam_generator=adam, adam_discriminator=adam)  # fmt: skip
    found = remedy_called(remedy)
    ahead = (ask.get("unroll") or AHEAD) if found.ahead else 0
    return Plan(dataset=own.data, recipe=made, remedy=found, ahead=ahead, seed=ask.get("seed") or 0, steps=ask.get("steps") or BUDGET,
                z_scale=ask.get("z_scale") or 1.0, snapshots=ask.get("snapshots") or 1)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trial:
    """What a remedy did: its last audit, or why it could not be tried. `earlier`: the audits of the snapshots before, oldest first."""

    remedy: str
    audit: dict[str, Any] | None = None
    reason: str = ""
    earlier: tuple[dict[str, Any], ...] = ()


def compare(own: Own, remedies: Sequence[str], out: Path, ask: dict[str, Any], run: Callable[[Plan, Path, Dataset], list[dict[str, Any]]]) -> list[Trial]:
    """Each remedy in a folder of its own under `out`. `run` trains a plan and gives the audits of its snapshots, oldest first."""
    data, latent = own_data(own), latent_of(own)
    trials = []
    for name in remedies:
        try:
            *earlier, last = run(own_plan(own, latent, name, ask), out / name.replace("+", "-"), data)
            trials.append(Trial(name, last, earlier=tuple(row for row in earlier if row["step"])))
        except GandiagError as problem:
            trials.append(Trial(name, reason=problem.what))
    return trials


def advice(trials: Sequence[Trial]) -> str:
    """Which remedy has the lowest score, and whether its interval lies below that of no remedy."""
    scored = [(trial.audit["score"], trial.remedy) for trial in trials if trial.audit and trial.audit["score"]["value"] is not None]
    plain = next((score for score, name in scored if name == "none"), None)
    if plain is None or len(scored) < 2:
        return "nothing to compare"
    best, name = min(scored, key=lambda entry: float(entry[0]["value"]))
    if name == "none":
        return f"no remedy lowers the score of {plain['value']:.2f} within this budget"
    sure = "" if best["high"] < plain["low"] else ", but the intervals overlap: more steps or seeds are needed"
    return f"{name} helps most: score {best['value']:.2f} against {plain['value']:.2f} without a remedy{sure}"


def packed(net: nn.Module, pack: int) -> nn.Module:
    """D for `pack` samples side by side: its first layer made anew for as many times the channels. ConfigError where that is none we know."""
    for parent in net.modules():
        for name, part in parent.named_children():
            if isinstance(part, nn.Conv2d) and part.groups == 1:
                wide = nn.Conv2d(part.in_channels * pack, part.out_channels, part.kernel_size, part.stride, part.padding, bias=part.bias is not None)  # type: ignore[arg-type]
            elif isinstance(part, nn.Linear):
                wide = nn.Linear(part.in_features * pack, part.out_features, bias=part.bias is not None)  # type: ignore[assignment]
            elif list(part.parameters()):
                break
            else:
                continue
            setattr(parent, name, wide)
            return net
    what = f"the remedy packing widens D's first layer, and {type(net).__name__} does not start with nn.Conv2d or nn.Linear"
    raise ConfigError(what, f"make D take {pack} times the channels yourself, or choose another remedy")
