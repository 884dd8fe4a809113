"""One run from its plan, stopped and taken up at any step: the loop, its log, its snapshots."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gandiag.errors import ConfigError, OutputError
from gandiag.trainer.export import serialize_generator
from gandiag.trainer.gan_trainer import GANTrainer, make_trainer
from gandiag.trainer.mode_coverage import ModeCoverage, measure_coverage
from gandiag.trainer.run_config import RunConfig
from gandiag.trainer.run_folder import RunFolder
from gandiag.trainer.toy_data import DATASETS

LOG_FILE, LOG_COLUMNS = "log.csv", ("step", "loss_d", "loss_g")
COVERAGE_FILE = "coverage.csv"
NUM_COVERAGE_SAMPLES = 2_500  # samples, as the papers take
EVALUATION_SEED = 7_919  # seed of the latents that coverage is counted on: the same at every step
LOG_INTERVAL = 5
NUM_EVALUATIONS = 100  # times that coverage is counted in a run
SAVE_INTERVAL_SECONDS = 10.0  # seconds of work that an interruption may cost


@dataclass(frozen=True, slots=True)
class TrainingStatus:
    """What a watcher sees now and then. `losses`: D's and G's since the last moment, oldest first."""

    step: int
    total_steps: int
    losses: tuple[tuple[float, float], ...]
    coverage: ModeCoverage | None


StatusCallback = Callable[[TrainingStatus], None]
TrainerFactory = Callable[[RunConfig], GANTrainer]


@dataclass(slots=True)
class _Notes:
    """What happened since the last save."""

    log: list[tuple[int, float, float]] = field(default_factory=list)
    coverage: list[tuple[int, ModeCoverage]] = field(default_factory=list)
    saved: float = field(default_factory=time.monotonic)


def make_default_trainer(config: RunConfig) -> GANTrainer:
    """The game of a plan's data set and recipe."""
    return make_trainer(
        config.recipe,
        DATASETS.get(config.dataset)(),
        config.remedy,
        seed=config.seed,
        unroll_steps=config.ahead,
        z_scale=config.z_scale,
    )


def train(
    config: RunConfig,
    out: Path,
    on_status: StatusCallback = lambda moment: None,
    trainer_factory: TrainerFactory | None = None,
) -> RunFolder:
    """Run the plan in the folder `out`, or finish what was begun there; afterwards it holds generator.safetensors.

    The same plan gives the same files to the bit, however often the run is interrupted. OutputError where it diverges: the
    last good snapshot stays. ConfigError where the folder holds another run, RecordError where the disk is full. `start` makes the game,
    by default from the plan's data set and recipe.
    """
    game = (trainer_factory or make_default_trainer)(config)
    data = game.setup.data
    folder = RunFolder(out)
    folder.open(config.to_dict())
    state = folder.load_state()
    if state is not None:
        game.load_state_dict(state)
    if game.steps > config.steps:
        raise ConfigError(
            f"{out} holds a run of {game.steps:,} steps, more than --steps {config.steps:,}",
            "give as many steps or more, or another --out",
        )
    for table in (LOG_FILE, COVERAGE_FILE):
        folder.truncate_table(table, game.steps if state is not None else -1)
    notes = _Notes()
    if state is None:
        _look(game, config, folder, notes)
    while game.steps < config.steps:
        _advance(game, config, folder, notes, on_status)
    folder.write(folder.generator_file.name, serialize_generator(game.generator.net, config, data, game.steps))
    return folder


def _advance(game: GANTrainer, plan: RunConfig, folder: RunFolder, notes: _Notes, watch: StatusCallback) -> None:
    losses = game.step()
    if not (math.isfinite(losses[0]) and math.isfinite(losses[1])):
        raise _diverged(game, plan, folder)
    if game.steps % LOG_INTERVAL == 0 or game.steps == plan.steps:
        notes.log.append((game.steps, *losses))
    looked = game.steps % max(1, plan.steps // NUM_EVALUATIONS) == 0 or _is_snapshot(game, plan)
    if looked:
        recent = tuple(entry[1:] for entry in notes.log)
        _look(game, plan, folder, notes)
        watch(TrainingStatus(game.steps, plan.steps, recent, notes.coverage[-1][1] if notes.coverage else None))
    if _is_snapshot(game, plan) or (looked and time.monotonic() - notes.saved > SAVE_INTERVAL_SECONDS):
        _save(game, folder, notes)


def _is_snapshot(game: GANTrainer, plan: RunConfig) -> bool:
    return game.steps % plan.snapshot_interval == 0 or game.steps == plan.steps


def _look(game: GANTrainer, plan: RunConfig, folder: RunFolder, notes: _Notes) -> None:
    """Count modes, and keep a snapshot where one is due; neither touches the game."""
    if not bool(torch.isfinite(game.generator.state.theta).all()):
        raise _diverged(game, plan, folder)
    found = (
        measure_coverage(game.setup.data, game.generate_samples(NUM_COVERAGE_SAMPLES, EVALUATION_SEED))
        if game.setup.data.read is not None
        else None
    )
    if found is not None:
        notes.coverage.append((game.steps, found))
    if _is_snapshot(game, plan):
        folder.save_snapshot(game.steps, serialize_generator(game.generator.net, plan, game.setup.data, game.steps))


def _save(game: GANTrainer, folder: RunFolder, notes: _Notes) -> None:
    """Tables first, then the state: rows that the state does not know are cut when the run is taken up."""
    folder.append_rows(LOG_FILE, LOG_COLUMNS, notes.log)
    names = [entry.name for entry in dataclasses.fields(ModeCoverage)]
    rows: list[list[Any]] = [[step, *dataclasses.astuple(found)] for step, found in notes.coverage]
    if rows:
        folder.append_rows(COVERAGE_FILE, ["step", *names], rows)
    folder.save_state(game.state_dict())
    notes.log, notes.coverage, notes.saved = [], [], time.monotonic()


def _diverged(game: GANTrainer, plan: RunConfig, folder: RunFolder) -> OutputError:
    kept = [path for step, path in folder.list_snapshots().items() if step < game.steps]
    left = f"; the last good snapshot is {kept[-1]}" if kept else ""
    hint = f"lower the learning rates, try another seed, or --remedy r1; so far: recipe {plan.recipe.name}, remedy {plan.remedy.name}, seed {plan.seed}"
    return OutputError(f"training diverged at step {game.steps:,}: a loss or a weight is no number{left}", hint)
