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
from gandiag.reference.coverage import Coverage, coverage
from gandiag.reference.data import DATASETS
from gandiag.reference.folder import RunFolder
from gandiag.reference.game import Game, make_game
from gandiag.reference.plan import Plan
from gandiag.reference.weights import as_file

LOG, LOG_COLUMNS = "log.csv", ("step", "loss_d", "loss_g")
COVERAGE = "coverage.csv"
COUNTED = 2_500  # samples, as the papers take
EVALUATED = 7_919  # seed of the latents that coverage is counted on: the same at every step
EVERY_LOG = 5
LOOKS = 100  # times that coverage is counted in a run
PATIENCE = 10.0  # seconds of work that an interruption may cost


@dataclass(frozen=True, slots=True)
class Moment:
    """What a watcher sees now and then. `losses`: D's and G's since the last moment, oldest first."""

    step: int
    steps: int
    losses: tuple[tuple[float, float], ...]
    coverage: Coverage | None


Watch = Callable[[Moment], None]
Start = Callable[[Plan], Game]


@dataclass(slots=True)
class _Notes:
    """What happened since the last save."""

    log: list[tuple[int, float, float]] = field(default_factory=list)
    coverage: list[tuple[int, Coverage]] = field(default_factory=list)
    saved: float = field(default_factory=time.monotonic)


def standard(plan: Plan) -> Game:
    """The game of a plan's data set and recipe."""
    return make_game(plan.recipe, DATASETS.get(plan.dataset)(), plan.remedy, seed=plan.seed, ahead=plan.ahead, z_scale=plan.z_scale)


def train(plan: Plan, out: Path, watch: Watch = lambda moment: None, start: Start | None = None) -> RunFolder:
    """Run the plan in the folder `out`, or finish what was begun there; afterwards it holds generator.safetensors.

    The same plan gives the same files to the bit, however often the run is interrupted. OutputError where it diverges: the
    last good snapshot stays. ConfigError where the folder holds another run, RecordError where the disk is full. `start` makes the game,
    by default from the plan's data set and recipe.
    """
    game = (start or standard)(plan)
    data = game.rules.data
    folder = RunFolder(out)
    folder.open(plan.as_data())
    state = folder.state()
    if state is not None:
        game.restore(state)
    if game.steps > plan.steps:
        raise ConfigError(f"{out} holds a run of {game.steps:,} steps, more than --steps {plan.steps:,}", "give as many steps or more, or another --out")
    for table in (LOG, COVERAGE):
        folder.cut(table, game.steps if state is not None else -1)
    notes = _Notes()
    if state is None:
        _look(game, plan, folder, notes)
    while game.steps < plan.steps:
        _advance(game, plan, folder, notes, watch)
    folder.write(folder.generator.name, as_file(game.generator.net, plan, data, game.steps))
    return folder


def _advance(game: Game, plan: Plan, folder: RunFolder, notes: _Notes, watch: Watch) -> None:
    losses = game.step()
    if not (math.isfinite(losses[0]) and math.isfinite(losses[1])):
        raise _diverged(game, plan, folder)
    if game.steps % EVERY_LOG == 0 or game.steps == plan.steps:
        notes.log.append((game.steps, *losses))
    looked = game.steps % max(1, plan.steps // LOOKS) == 0 or _is_snapshot(game, plan)
    if looked:
        recent = tuple(entry[1:] for entry in notes.log)
        _look(game, plan, folder, notes)
        watch(Moment(game.steps, plan.steps, recent, notes.coverage[-1][1] if notes.coverage else None))
    if _is_snapshot(game, plan) or (looked and time.monotonic() - notes.saved > PATIENCE):
        _save(game, folder, notes)


def _is_snapshot(game: Game, plan: Plan) -> bool:
    return game.steps % plan.every == 0 or game.steps == plan.steps


def _look(game: Game, plan: Plan, folder: RunFolder, notes: _Notes) -> None:
    """Count modes, and keep a snapshot where one is due; neither touches the game."""
    if not bool(torch.isfinite(game.generator.state.theta).all()):
        raise _diverged(game, plan, folder)
    found = coverage(game.rules.data, game.sample(COUNTED, EVALUATED)) if game.rules.data.read is not None else None
    if found is not None:
        notes.coverage.append((game.steps, found))
    if _is_snapshot(game, plan):
        folder.snapshot(game.steps, as_file(game.generator.net, plan, game.rules.data, game.steps))


def _save(game: Game, folder: RunFolder, notes: _Notes) -> None:
    """Tables first, then the state: rows that the state does not know are cut when the run is taken up."""
    folder.append(LOG, LOG_COLUMNS, notes.log)
    names = [entry.name for entry in dataclasses.fields(Coverage)]
    rows: list[list[Any]] = [[step, *dataclasses.astuple(found)] for step, found in notes.coverage]
    if rows:
        folder.append(COVERAGE, ["step", *names], rows)
    folder.save_state(game.state())
    notes.log, notes.coverage, notes.saved = [], [], time.monotonic()


def _diverged(game: Game, plan: Plan, folder: RunFolder) -> OutputError:
    kept = [path for step, path in folder.snapshots().items() if step < game.steps]
    left = f"; the last good snapshot is {kept[-1]}" if kept else ""
    hint = f"lower the learning rates, try another seed, or --remedy r1; so far: recipe {plan.recipe.name}, remedy {plan.remedy.name}, seed {plan.seed}"
    return OutputError(f"training diverged at step {game.steps:,}: a loss or a weight is no number{left}", hint)
