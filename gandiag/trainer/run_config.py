"""Configuration of one run: dataset, recipe, remedy, seed and length."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gandiag.errors import ConfigError
from gandiag.trainer.recipes import Recipe, get_default_recipe, get_recipe, recipe_to_dict
from gandiag.trainer.remedies.base import Remedy
from gandiag.trainer.remedies.registry import get_remedy

DEFAULT_SNAPSHOTS = 10  # kept by a run, besides the one before the first step


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """One run. The same configuration gives the same weights bit for bit, on one machine and version of torch.

    unroll_steps   steps of D that G differentiates through, 0 unless the remedy unrolls
    z_scale        multiplies the latents during training
    snapshots      number of snapshots, evenly spaced, besides the one at step 0
    """

    dataset: str
    recipe: Recipe
    remedy: Remedy
    unroll_steps: int
    seed: int = 0
    steps: int
    z_scale: float = 1.0
    snapshots: int = DEFAULT_SNAPSHOTS

    @property
    def snapshot_interval(self) -> int:
        """Steps between two snapshots."""
        return max(1, self.steps // max(1, self.snapshots))

    def to_dict(self) -> dict[str, Any]:
        """Return everything that determines the run, with the keys of config.json."""
        return {
            "dataset": self.dataset,
            "recipe": recipe_to_dict(self.recipe),
            "remedy": self.remedy.name,
            "ahead": self.unroll_steps,
            "seed": self.seed,
            "steps": self.steps,
            "z_scale": self.z_scale,
            "snapshots": self.snapshots,
        }


def make_run_config(dataset: str, options: Mapping[str, Any]) -> RunConfig:
    """Return the configuration for options of `gandiag train`; missing or None means the default.

    Options: recipe, remedy, unroll, seed, steps, z_scale, snapshots. Raises ConfigError for impossible values.
    """
    recipe = get_recipe(options["recipe"]) if options.get("recipe") else get_default_recipe(dataset)
    remedy = get_remedy(options.get("remedy") or "none")
    config = RunConfig(
        dataset=dataset,
        recipe=recipe,
        remedy=remedy,
        unroll_steps=_resolve_unroll_steps(remedy, options.get("unroll")),
        steps=recipe.steps if options.get("steps") is None else options["steps"],
    )
    overrides = {name: options[name] for name in ("seed", "z_scale", "snapshots") if options.get(name) is not None}
    config = dataclasses.replace(config, **overrides)
    if config.steps < 1:
        raise ConfigError(f"--steps is {config.steps}", "give a number above 0")
    if not config.z_scale > 0:
        raise ConfigError(f"--z-scale is {config.z_scale:g}", "give a number above 0")
    return config


def _resolve_unroll_steps(remedy: Remedy, unroll: int | None) -> int:
    if unroll is None:
        return remedy.unroll_steps
    if unroll < 0:
        raise ConfigError(f"--unroll is {unroll}", "give a number of steps, or 0 for none")
    if unroll and not remedy.unroll_steps:
        suggestion = "unrolled" if remedy.name == "none" else f"{remedy.name}+unrolled"
        raise ConfigError(
            f"--unroll {unroll} has no effect with the remedy {remedy.name}, which does not unroll",
            f"use --remedy {suggestion}",
        )
    return unroll
