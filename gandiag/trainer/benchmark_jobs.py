"""What the bank runs: studies from gandiag/data/bank.toml, as jobs, shared out over processes and machines."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from gandiag.errors import ConfigError, close_match_hint
from gandiag.trainer.recipes import get_recipe
from gandiag.trainer.run_config import RunConfig, make_run_config


@dataclass(frozen=True, slots=True)
class BenchmarkJob:
    """One run of a study. `arm`: remedy, or remedy/K."""

    study: str
    recipe: str
    arm: str
    seed: int
    steps: int
    snapshots: int

    def make_config(self) -> RunConfig:
        remedy, _, ahead = self.arm.partition("/")
        ask = {"recipe": self.recipe, "remedy": remedy, "unroll": int(ahead) if ahead else None}
        return make_run_config(
            get_recipe(self.recipe).dataset,
            {**ask, "seed": self.seed, "steps": self.steps, "snapshots": self.snapshots},
        )

    def run_folder(self, out: Path) -> Path:
        return out / self.study / self.arm.replace("/", "-") / f"seed-{self.seed}"

    @property
    def shortened(self) -> bool:
        """Whether the run is shorter than its recipe."""
        return self.steps < get_recipe(self.recipe).steps


@cache
def load_studies() -> Mapping[str, Any]:
    """The table, by name of the study."""
    return tomllib.loads(files("gandiag.data").joinpath("bank.toml").read_text(encoding="utf-8"))


def list_jobs(study: str | None = None) -> list[BenchmarkJob]:
    """Every job, seed by seed, so that an unfinished bank has its arms paired."""
    if study is not None and study not in load_studies():
        raise ConfigError(f"there is no study called {study!r}", close_match_hint(study, list(load_studies())))
    chosen = {name: entry for name, entry in load_studies().items() if study in (None, name)}
    return [
        BenchmarkJob(name, entry["recipe"], arm, seed, entry["steps"], entry["snapshots"])
        for name, entry in chosen.items()
        for seed in entry["seeds"]
        for arm in entry["arms"]
    ]


def select_jobs_for_rank(jobs: list[BenchmarkJob], environ: Mapping[str, str] | None = None) -> list[BenchmarkJob]:
    """The jobs of this process: every world-th one from its rank, by RANK and WORLD_SIZE, or SLURM's names for them."""
    environ = os.environ if environ is None else environ
    for rank, world in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if rank in environ and world in environ:
            try:
                place, count = int(environ[rank]), int(environ[world])
            except ValueError:
                place, count = -1, 0
            if not 0 <= place < count:
                raise ConfigError(
                    f"{rank} is {environ[rank]!r} of {world} {environ[world]!r}",
                    "unset both, or set a rank from 0 to one below the world size",
                )
            return jobs[place::count]
    return jobs
