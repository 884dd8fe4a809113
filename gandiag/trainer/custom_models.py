"""Somebody's own networks under each remedy, for a budget: which one helps a model that has collapsed?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gandiag.checkpoints.model_factory import build_model
from gandiag.checkpoints.module_adapter import CallSignature, infer_call_signature
from gandiag.config import AuditConfig
from gandiag.errors import ConfigError, GandiagError, LoadError
from gandiag.interfaces import LatentSpec
from gandiag.trainer.image_data import load_dataset as samples_in
from gandiag.trainer.recipes import NetworkSettings, Recipe
from gandiag.trainer.remedies.registry import get_remedy
from gandiag.trainer.run_config import RunConfig
from gandiag.trainer.toy_data import Dataset
from gandiag.trainer.unrolling.adam import AdamSettings

DEFAULT_REMEDIES = (
    "none",
    "minibatch-stddev",
    "minibatch",
    "packing",
    "unrolled",
    "r1",
    "relativistic",
    "spectral",
    "mode-seeking",
)
DEFAULT_STEPS = 2_000  # steps under each remedy
DEFAULT_UNROLL_STEPS = 5


@dataclass(frozen=True, slots=True)
class CustomNetworks:
    """The networks of a person: `pkg.mod:G` and `pkg.mod:D`, with k=v arguments for both; each call makes a fresh one."""

    data: str
    generator: str
    discriminator: str
    model_args: tuple[str, ...] = ()

    def build_networks(self, pack_size: int) -> tuple[nn.Module, nn.Module]:
        """Fresh networks, D's first layer widened to `pack` samples."""
        judge = build_model(self.discriminator, self.model_args)
        return build_model(self.generator, self.model_args), judge if pack_size == 1 else expand_first_layer(
            judge, pack_size
        )


def infer_latent(networks: CustomNetworks) -> LatentSpec:
    """What G's latents look like. LoadError where G cannot be called."""
    return _adapted(networks).latent


def load_custom_dataset(networks: CustomNetworks) -> Dataset:
    """The data as G would make them."""
    output = _adapted(networks).output
    data = samples_in(networks.data, output)
    if data.output.shape != output.shape:
        what = (
            f"{networks.data} holds samples of shape {data.output.shape}, and {networks.generator} makes {output.shape}"
        )
        raise LoadError(what, "give data and a generator of one shape")
    return data


def _adapted(own: CustomNetworks) -> CallSignature:
    with torch.random.fork_rng(devices=[]):
        return infer_call_signature(build_model(own.generator, own.model_args).eval(), AuditConfig())


def make_remedy_config(networks: CustomNetworks, latent: LatentSpec, remedy: str, options: dict[str, Any]) -> RunConfig:
    """A plan for one remedy with common settings: Adam 2e-4, beta1 0.5, batch 64, non-saturating loss."""
    adam = AdamSettings(lr=2e-4, beta1=0.5)
    made = Recipe(
        name="own",
        title=f"{networks.generator} against {networks.discriminator}",
        source="your own networks",
        dataset=networks.data,
        steps=DEFAULT_STEPS,
        batch=64,
        latent=latent.dim,
        loss="non-saturating",
        generator=NetworkSettings(kind=networks.generator),
        discriminator=NetworkSettings(kind=networks.discriminator),
        adam_generator=adam,
        adam_discriminator=adam,
    )
    found = get_remedy(remedy)
    ahead = (options.get("unroll") or DEFAULT_UNROLL_STEPS) if found.unroll_steps else 0
    return RunConfig(
        dataset=networks.data,
        recipe=made,
        remedy=found,
        ahead=ahead,
        seed=options.get("seed") or 0,
        steps=options.get("steps") or DEFAULT_STEPS,
        z_scale=options.get("z_scale") or 1.0,
        snapshots=options.get("snapshots") or 1,
    )


@dataclass(frozen=True, slots=True)
class RemedyResult:
    """What a remedy did: its last audit, or why it could not be tried. `earlier`: the audits of the snapshots before, oldest first."""

    remedy: str
    audit: dict[str, Any] | None = None
    reason: str = ""
    previous_audits: tuple[dict[str, Any], ...] = ()


def compare_remedies(
    networks: CustomNetworks,
    remedies: Sequence[str],
    out: Path,
    options: dict[str, Any],
    train_and_audit: Callable[[RunConfig, Path, Dataset], list[dict[str, Any]]],
) -> list[RemedyResult]:
    """Each remedy in a folder of its own under `out`. `run` trains a plan and gives the audits of its snapshots, oldest first."""
    data, latent = load_custom_dataset(networks), infer_latent(networks)
    trials = []
    for name in remedies:
        try:
            *earlier, last = train_and_audit(
                make_remedy_config(networks, latent, name, options), out / name.replace("+", "-"), data
            )
            trials.append(RemedyResult(name, last, previous_audits=tuple(row for row in earlier if row["step"])))
        except GandiagError as problem:
            trials.append(RemedyResult(name, reason=problem.message))
    return trials


def describe_best_remedy(results: Sequence[RemedyResult]) -> str:
    """Which remedy has the lowest score, and whether its interval lies below that of no remedy."""
    scored = [
        (trial.audit["score"], trial.remedy)
        for trial in results
        if trial.audit and trial.audit["score"]["value"] is not None
    ]
    plain = next((score for score, name in scored if name == "none"), None)
    if plain is None or len(scored) < 2:
        return "nothing to compare"
    best, name = min(scored, key=lambda entry: float(entry[0]["value"]))
    if name == "none":
        return f"no remedy lowers the score of {plain['value']:.2f} within this budget"
    sure = "" if best["high"] < plain["low"] else ", but the intervals overlap: more steps or seeds are needed"
    return f"{name} helps most: score {best['value']:.2f} against {plain['value']:.2f} without a remedy{sure}"


def expand_first_layer(net: nn.Module, pack_size: int) -> nn.Module:
    """D for `pack` samples side by side: its first layer made anew for as many times the channels. ConfigError where that is none we know."""
    for parent in net.modules():
        for name, part in parent.named_children():
            if isinstance(part, nn.Conv2d) and part.groups == 1:
                wide = nn.Conv2d(
                    part.in_channels * pack_size,
                    part.out_channels,
                    part.kernel_size,
                    part.stride,
                    part.padding,
                    bias=part.bias is not None,
                )  # type: ignore[arg-type]
            elif isinstance(part, nn.Linear):
                wide = nn.Linear(part.in_features * pack_size, part.out_features, bias=part.bias is not None)  # type: ignore[assignment]
            elif list(part.parameters()):
                break
            else:
                continue
            setattr(parent, name, wide)
            return net
    what = f"the remedy packing widens D's first layer, and {type(net).__name__} does not start with nn.Conv2d or nn.Linear"
    raise ConfigError(what, f"make D take {pack_size} times the channels yourself, or choose another remedy")
