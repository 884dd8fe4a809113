"""What one run is: data, recipe, remedy, seed and length; and what of it is written down."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gandiag.errors import ConfigError
from gandiag.trainer.recipes import Recipe, get_default_recipe, get_recipe, recipe_to_dict
from gandiag.trainer.remedies.base import Remedy
from gandiag.trainer.remedies.registry import get_remedy

DEFAULT_SNAPSHOTS = 10  # a run leaves this many, and the one before the first step


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """One run. The same plan gives the same weights to the bit, on one machine and version of torch.

    `ahead`: steps of D that G looks ahead, 0 unless the remedy unrolls. `z_scale`: what the latents of the training are
    multiplied by. `snapshots`: how many are kept, evenly spaced, besides the one at step 0.
    """

    dataset: str
    recipe: Recipe
    remedy: Remedy
    ahead: int
    seed: int = 0
    steps: int
    z_scale: float = 1.0
    snapshots: int = DEFAULT_SNAPSHOTS

    @property
    def snapshot_interval(self) -> int:
        """Steps between two snapshots."""
        return max(1, self.steps // max(1, self.snapshots))

    def to_dict(self) -> dict[str, Any]:
        """Everything that decides the run, for config.json."""
        kept = {
            entry.name: getattr(self, entry.name)
            for entry in dataclasses.fields(self)
            if entry.name not in ("recipe", "remedy")
        }
        return {**kept, "remedy": self.remedy.name, "recipe": recipe_to_dict(self.recipe)}


def make_run_config(dataset: str, options: Mapping[str, Any]) -> RunConfig:
    """A plan from the options of the command line: recipe, remedy, unroll, seed, steps, z_scale, snapshots; unset ones are left out."""
    chosen = get_recipe(options["recipe"]) if options.get("recipe") else get_default_recipe(dataset)
    remedy = get_remedy(options.get("remedy") or "none")
    steps = chosen.steps if options.get("steps") is None else options["steps"]
    rest = {name: options[name] for name in ("seed", "z_scale", "snapshots") if options.get(name) is not None}
    plan = RunConfig(
        dataset=dataset, recipe=chosen, remedy=remedy, ahead=_ahead(remedy, options.get("unroll")), steps=steps, **rest
    )
    if plan.steps < 1 or not plan.z_scale > 0:
        raise ConfigError(f"--steps is {plan.steps} and --z-scale {plan.z_scale:g}", "give numbers above 0")
    return plan


def _ahead(remedy: Remedy, unroll: int | None) -> int:
    if unroll is None:
        return remedy.unroll_steps
    if unroll < 0:
        raise ConfigError(f"--unroll is {unroll}", "give the number of steps, 0 for none")
    if unroll and not remedy.unroll_steps:
        wanted = "unrolled" if remedy.name == "none" else f"{remedy.name}+unrolled"
        raise ConfigError(f"--unroll {unroll} is of no use to the remedy {remedy.name}", f"--remedy {wanted}")
    return unroll
