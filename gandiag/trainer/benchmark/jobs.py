"""Reads the studies in gandiag/data/bank.toml as jobs, and divides the jobs among processes and machines."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from gandiag.errors import ConfigError, close_match_hint
from gandiag.trainer.recipes import get_recipe
from gandiag.trainer.run_config import RunConfig, make_run_config

RANK_VARIABLES = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))


@dataclass(frozen=True, slots=True)
class BenchmarkJob:
    """One run of a study. `arm` is a remedy, or remedy/K with K unrolled steps."""

    study: str
    recipe: str
    arm: str
    seed: int
    steps: int
    snapshots: int

    def make_config(self) -> RunConfig:
        """Return the configuration of the run."""
        remedy, _, unroll = self.arm.partition("/")
        options = {
            "recipe": self.recipe,
            "remedy": remedy,
            "unroll": int(unroll) if unroll else None,
            "seed": self.seed,
            "steps": self.steps,
            "snapshots": self.snapshots,
        }
        return make_run_config(get_recipe(self.recipe).dataset, options)

    def run_folder(self, out: Path) -> Path:
        """Return the folder of the run."""
        return out / self.study / self.arm.replace("/", "-") / f"seed-{self.seed}"

    @property
    def shortened(self) -> bool:
        """Whether the run is shorter than its recipe."""
        return self.steps < get_recipe(self.recipe).steps


@cache
def load_studies() -> Mapping[str, Any]:
    """Return the studies by name."""
    return tomllib.loads(files("gandiag.data").joinpath("bank.toml").read_text(encoding="utf-8"))


def list_jobs(study: str | None = None) -> list[BenchmarkJob]:
    """Return every job of one study or of all.

    Jobs are ordered by seed within a study, so that the arms of an unfinished benchmark are paired.
    """
    studies = load_studies()
    if study is not None and study not in studies:
        raise ConfigError(f"there is no study called {study!r}", close_match_hint(study, list(studies)))
    return [
        BenchmarkJob(name, entry["recipe"], arm, seed, entry["steps"], entry["snapshots"])
        for name, entry in studies.items()
        if study in (None, name)
        for seed in entry["seeds"]
        for arm in entry["arms"]
    ]


def select_jobs_for_rank(
    jobs: Sequence[BenchmarkJob], environ: Mapping[str, str] | None = None
) -> Sequence[BenchmarkJob]:
    """Return this process's share of the jobs, by RANK and WORLD_SIZE or by SLURM's variables; all without either."""
    environ = os.environ if environ is None else environ
    for rank_name, world_name in RANK_VARIABLES:
        if rank_name not in environ or world_name not in environ:
            continue
        try:
            rank, world_size = int(environ[rank_name]), int(environ[world_name])
        except ValueError:
            rank, world_size = -1, 0
        if not 0 <= rank < world_size:
            raise ConfigError(
                f"{rank_name} is {environ[rank_name]!r} and {world_name} is {environ[world_name]!r}",
                f"unset both, or set {rank_name} to a number from 0 to one below {world_name}",
            )
        return jobs[rank::world_size]
    return jobs
