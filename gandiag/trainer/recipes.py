"""Recipes: the settings of published experiments, read from gandiag/data/recipes.toml."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from gandiag.errors import ConfigError, close_match_hint
from gandiag.trainer.unrolling.adam import AdamSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """A network as data. kind "mlp": `hidden` widths; "conv": `hidden` channels, G doubling from 4 x 4, D halving.

    `activation`: relu, tanh, leaky:0.2, maxout:5 …; `norm`: batch norm after every hidden map; `scale` multiplies D's input.
    `init`: orthogonal or default (torch's own) with `gain`, or normal with deviation `gain`.
    """

    kind: str = "mlp"
    hidden: tuple[int, ...] = (128,)
    activation: str = "relu"
    norm: bool = False
    init: str = "default"
    gain: float = 1.0
    scale: float = 1.0
    final: str = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that a run needs but its remedy, seed and length. `recalled`: what of it could not be read at the source."""

    name: str
    title: str
    source: str
    recalled: str = ""
    dataset: str
    steps: int
    batch: int
    latent: int
    prior: str = "normal"
    loss: str
    generator: NetworkSettings
    discriminator: NetworkSettings
    adam_generator: AdamSettings = field(default_factory=AdamSettings)
    adam_discriminator: AdamSettings = field(default_factory=AdamSettings)


@cache
def load_recipes() -> Mapping[str, Recipe]:
    """All recipes by name, in the order of the file."""
    table = tomllib.loads(files("gandiag.data").joinpath("recipes.toml").read_text(encoding="utf-8"))
    return {name: _recipe(name, entry) for name, entry in table.items()}


def get_recipe(name: str) -> Recipe:
    """One recipe. ConfigError lists near matches."""
    if name not in load_recipes():
        raise ConfigError(f"there is no recipe called {name!r}", close_match_hint(name, list(load_recipes())))
    return load_recipes()[name]


def get_default_recipe(dataset: str) -> Recipe:
    """The first recipe made for a data set, with which `gandiag train` starts; ConfigError where there is none."""
    for entry in load_recipes().values():
        if entry.dataset == dataset:
            return entry
    raise ConfigError(f"no recipe is made for {dataset!r}", f"give one: --recipe {', '.join(load_recipes())}")


def _recipe(name: str, entry: Mapping[str, Any]) -> Recipe:
    nets = {
        side: NetworkSettings(**{**entry[side], "hidden": tuple(entry[side]["hidden"])})
        for side in ("generator", "discriminator")
    }
    adams = {side: AdamSettings(**entry[side]) for side in ("adam_generator", "adam_discriminator") if side in entry}
    return Recipe(**{**entry, **nets, **adams, "name": name})


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain data, for config.json."""
    return dataclasses.asdict(recipe)
