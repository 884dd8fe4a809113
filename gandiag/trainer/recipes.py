"""Settings of published experiments, read from gandiag/data/recipes.toml."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from gandiag.errors import ConfigError, close_match_hint
from gandiag.interfaces import Prior
from gandiag.trainer.unrolling.adam import AdamSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """A network as data.

    kind         "mlp": `hidden` are widths; "conv": `hidden` are channels, and G doubles the resolution from 4 x 4 at
                 each layer while D halves it
    activation   relu, tanh, leaky:0.2, maxout:5, …
    norm         BatchNorm after every hidden layer
    init         "orthogonal" or "default" (PyTorch's own), scaled by `gain`; or "normal" with standard deviation `gain`
    scale        multiplies D's input
    final        output activation of G
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
    """Everything a run needs except remedy, seed and length.

    `recalled` lists the settings that could not be checked at the source.
    """

    name: str
    title: str
    source: str
    recalled: str = ""
    dataset: str
    steps: int
    batch: int
    latent: int
    prior: Prior = "normal"
    loss: str
    generator: NetworkSettings
    discriminator: NetworkSettings
    adam_generator: AdamSettings = field(default_factory=AdamSettings)
    adam_discriminator: AdamSettings = field(default_factory=AdamSettings)


@cache
def load_recipes() -> Mapping[str, Recipe]:
    """Return all recipes by name, in file order."""
    table = tomllib.loads(files("gandiag.data").joinpath("recipes.toml").read_text(encoding="utf-8"))
    return {name: _parse_recipe(name, entry) for name, entry in table.items()}


def get_recipe(name: str) -> Recipe:
    """Return a recipe. Raises ConfigError with close matches if the name is unknown."""
    if name not in load_recipes():
        raise ConfigError(f"there is no recipe called {name!r}", close_match_hint(name, list(load_recipes())))
    return load_recipes()[name]


def get_default_recipe(dataset: str) -> Recipe:
    """Return the first recipe for a dataset, the default of `gandiag train`. Raises ConfigError if there is none."""
    for recipe in load_recipes().values():
        if recipe.dataset == dataset:
            return recipe
    raise ConfigError(f"there is no recipe for the dataset {dataset!r}", f"give --recipe: {', '.join(load_recipes())}")


def _parse_recipe(name: str, entry: Mapping[str, Any]) -> Recipe:
    networks = {
        key: NetworkSettings(**{**entry[key], "hidden": tuple(entry[key]["hidden"])})
        for key in ("generator", "discriminator")
    }
    adam = {key: AdamSettings(**entry[key]) for key in ("adam_generator", "adam_discriminator") if key in entry}
    return Recipe(**{**entry, **networks, **adam, "name": name})


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain data, for config.json."""
    return dataclasses.asdict(recipe)
