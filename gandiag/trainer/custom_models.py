"""Trains a user's own networks under several remedies and compares them: which one helps a model that has collapsed?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from gandiag.trainer.image_data import load_dataset
from gandiag.trainer.recipes import NetworkSettings, Recipe
from gandiag.trainer.remedies.registry import get_remedy
from gandiag.trainer.run_config import RunConfig
from gandiag.trainer.toy_data import Dataset
from gandiag.trainer.unrolling.adam import AdamSettings
from gandiag.untrusted.files import make_own_folders

DEFAULT_STEPS = 2_000  # per remedy
DEFAULT_UNROLL_STEPS = 5
BATCH_SIZE = 64
ADAM = AdamSettings(lr=2e-4, beta1=0.5)

# Trains a configuration in a folder, and returns the audits of its snapshots, oldest first.
TrainAndAudit = Callable[[RunConfig, Path, Dataset], list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class CustomNetworks:
    """A user's data and networks: `pkg.mod:G` and `pkg.mod:D`, with k=v arguments for both."""

    data: str
    generator: str
    discriminator: str
    model_args: tuple[str, ...] = ()

    def build_networks(self, pack_size: int) -> tuple[nn.Module, nn.Module]:
        """Return a new G and D, D's first layer widened for packs of `pack_size` samples."""
        discriminator = build_model(self.discriminator, self.model_args)
        generator = build_model(self.generator, self.model_args)
        return generator, discriminator if pack_size == 1 else expand_first_layer(discriminator, pack_size)


def infer_latent(networks: CustomNetworks) -> LatentSpec:
    """Return the latents that G takes. Raises LoadError if G cannot be called."""
    return _infer_signature(networks).latent


def load_custom_dataset(networks: CustomNetworks) -> Dataset:
    """Load the data, converted to G's output format. Raises LoadError if the shapes differ."""
    output = _infer_signature(networks).output
    data = load_dataset(networks.data, output)
    if data.output.shape != output.shape:
        raise LoadError(
            f"{networks.data} holds samples of shape {data.output.shape}, but {networks.generator} generates "
            f"{output.shape}",
            "give data and a generator of the same shape",
        )
    return data


def _infer_signature(networks: CustomNetworks) -> CallSignature:
    with torch.random.fork_rng(devices=[]):
        return infer_call_signature(build_model(networks.generator, networks.model_args).eval(), AuditConfig())


def make_remedy_config(
    networks: CustomNetworks, latent: LatentSpec, remedy: str, options: Mapping[str, Any]
) -> RunConfig:
    """Return the configuration for one remedy, with common settings.

    These are Adam with 2e-4 and beta1 0.5, batch 64, and the non-saturating loss.
    """
    recipe = Recipe(
        name="own",
        title=f"{networks.generator} against {networks.discriminator}",
        source="your own networks",
        dataset=networks.data,
        steps=DEFAULT_STEPS,
        batch=BATCH_SIZE,
        latent=latent.dim,
        loss="non-saturating",
        generator=NetworkSettings(kind=networks.generator),
        discriminator=NetworkSettings(kind=networks.discriminator),
        adam_generator=ADAM,
        adam_discriminator=ADAM,
    )
    resolved = get_remedy(remedy)
    unroll_steps = options.get("unroll") or DEFAULT_UNROLL_STEPS
    return RunConfig(
        dataset=networks.data,
        recipe=recipe,
        remedy=resolved,
        unroll_steps=unroll_steps if resolved.unroll_steps else 0,
        seed=options.get("seed") or 0,
        steps=options.get("steps") or DEFAULT_STEPS,
        z_scale=options.get("z_scale") or 1.0,
        snapshots=options.get("snapshots") or 1,
    )


@dataclass(frozen=True, slots=True)
class RemedyResult:
    """The last audit under a remedy, or the reason why it could not be tried.

    `previous_audits` are those of the earlier snapshots, oldest first.
    """

    remedy: str
    audit: dict[str, Any] | None = None
    reason: str = ""
    previous_audits: tuple[dict[str, Any], ...] = ()


def compare_remedies(
    networks: CustomNetworks,
    remedies: Sequence[str],
    out: Path,
    options: Mapping[str, Any],
    train_and_audit: TrainAndAudit,
) -> list[RemedyResult]:
    """Try each remedy in its own folder under `out`. A remedy that fails is reported, and the others still run."""
    data, latent = load_custom_dataset(networks), infer_latent(networks)
    results = []
    for name in remedies:
        try:
            config = make_remedy_config(networks, latent, name, options)
            folder = _make_run_folder(out, name)
            *previous, last = train_and_audit(config, folder, data)
            after_start = tuple(row for row in previous if row["step"])
            results.append(RemedyResult(name, last, previous_audits=after_start))
        except GandiagError as error:
            results.append(RemedyResult(name, reason=error.message))
    return results


def _make_run_folder(out: Path, remedy: str) -> Path:
    """The folder of a remedy's run. ConfigError where it is a link."""
    folder = out / remedy.replace("+", "-")
    try:
        make_own_folders(out, folder)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be used: {error.strerror}", "choose another --out") from None
    return folder


def describe_best_remedy(results: Sequence[RemedyResult]) -> str:
    """Return a sentence on which remedy has the lowest score, and whether its interval lies below that of none."""
    scored = [
        (result.audit["score"], result.remedy)
        for result in results
        if result.audit and result.audit["score"]["value"] is not None
    ]
    baseline = next((score for score, name in scored if name == "none"), None)
    if baseline is None or len(scored) < 2:
        return "too few scores to compare remedies"
    best, name = min(scored, key=lambda entry: float(entry[0]["value"]))
    if name == "none":
        return f"no remedy lowers the score of {baseline['value']:.2f} in this many steps"
    is_separated = best["high"] < baseline["low"]
    caveat = "" if is_separated else ", but the intervals overlap: train for more steps or from more seeds"
    return f"{name} helps most: score {best['value']:.2f} against {baseline['value']:.2f} without a remedy{caveat}"


def expand_first_layer(net: nn.Module, pack_size: int) -> nn.Module:
    """Replace D's first layer with a new one for `pack_size` times the input channels.

    Raises ConfigError if the first layer with parameters is neither nn.Conv2d (without groups) nor nn.Linear.
    """
    for parent in net.modules():
        for name, part in parent.named_children():
            wide: nn.Module
            if isinstance(part, nn.Conv2d) and part.groups == 1:
                wide = nn.Conv2d(
                    part.in_channels * pack_size,
                    part.out_channels,
                    part.kernel_size,  # type: ignore[arg-type]
                    part.stride,  # type: ignore[arg-type]
                    part.padding,  # type: ignore[arg-type]
                    bias=part.bias is not None,
                )
            elif isinstance(part, nn.Linear):
                wide = nn.Linear(part.in_features * pack_size, part.out_features, bias=part.bias is not None)
            elif list(part.parameters()):
                break
            else:
                continue
            setattr(parent, name, wide)
            return net
    raise ConfigError(
        f"the remedy packing widens D's first layer, and {type(net).__name__} does not start with nn.Conv2d or "
        "nn.Linear",
        f"make D take {pack_size} times the channels yourself, or choose another remedy",
    )
