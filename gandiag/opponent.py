"""The discriminator of an audit: whether the probe of the game is worth its cost, and what it found, for the Record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gandiag.config import AuditConfig
from gandiag.contracts import Estimate, Outcome
from gandiag.load.discriminator import Opponent, find_opponent, settle
from gandiag.load.rebuild.judges import assemble
from gandiag.load.rebuild.layers import NotThis
from gandiag.probes.duality_gap import CHANCE, Effort, Gap, Look, Players, duality_gap
from gandiag.record import Exhibit, Measurement
from gandiag.sample.latents import labels, latents
from gandiag.sample.sampler import Sampler
from gandiag.sample.streams import SampleSet

KEYS = ("game_value", "game_upper", "game_lower", "duality_gap", "maximin_gain", "maximin_spread", "maximin_outputs")
REAL = 1_500  # real samples that the probe learns from, chooses by and judges by
SETTLED = 96  # samples of each side that a discriminator's batch norm is tried on
POOL = 8_192  # latents to learn from, drawn once
LEAST_STEPS = 25
# By budget: the most steps of a search, and multiplications in all on a CPU (some seconds, some minutes); a GPU has 30 times as many.
EFFORTS = {"standard": (200, 1e11), "thorough": (500, 4e12)}
SPEED, OVERHEAD = 1.2e10, 3e-3  # multiplications in a second on one core; seconds of a step beside them


@dataclass(frozen=True, slots=True)
class Match:
    """What a study knows of the generator's opponent. `effort`: how long is searched; `reason`: why not at all. `seconds`: about."""

    opponent: Opponent
    effort: Effort | None = None
    reason: str = ""
    seconds: float = 0.0


def match_of(sampler: Sampler | None, config: AuditConfig, *, referenced: bool) -> Match | None:
    """The discriminator that goes with a sampler's file, and whether there is cause to play; None where there is no file, or no discriminator."""
    path = None if sampler is None else sampler.subject.get("path")
    if sampler is None or path is None:
        return None
    found = find_opponent(path, sampler.output)
    if found is None:
        return None
    reason = _why_not(found, config, referenced)
    if reason:
        return Match(found, reason=reason)
    try:
        return _affordable(found, sampler, config)
    except Exception as odd:  # what fails here says so among what was not measured; the audit goes on
        return Match(found, reason=f"the discriminator ({found.where}) cannot be called: {odd}"[:160])


def _why_not(found: Opponent, config: AuditConfig, referenced: bool) -> str:
    if found.judge is None:
        return f"the discriminator ({found.where}) is not rebuilt: {found.reason}"
    if config.budget not in EFFORTS:
        return f"the discriminator ({found.where}) is left out by --budget {config.budget}"
    if not referenced:
        return f"the discriminator ({found.where}) is there; the game needs --real"
    if config.strict and any(entry.source == "default" for entry in found.assumptions):
        return f"the discriminator ({found.where}) needs assumptions, and --strict takes none"
    return ""


def _affordable(found: Opponent, sampler: Sampler, config: AuditConfig) -> Match:
    """As many steps as the budget's multiplications allow."""
    assert found.judge is not None
    steps, most = EFFORTS[config.budget]
    batch = 128 if sampler.output.kind == "vector" else 64
    slim = torch.zeros(2 * found.judge.pack, *sampler.output.shape)
    judging = work(assemble(found.judge, found.judge.activations[0], found.judge.epses[0]), slim)
    making = work(sampler.network.module, torch.zeros(2, *sampler.latent.shape), lambda z: sampler.run(z, _labels(sampler, torch.arange(len(z)), config)))
    a_step = 3 * batch * (making * 4 / 3 + 5 * judging)  # forward and backward of the searches, and G's forward in D's
    most *= 1.0 if sampler.device.type == "cpu" else 30.0
    afford = min(steps, int(most / (1.75 * a_step)))
    if afford < LEAST_STEPS:
        return Match(found, reason=f"{LEAST_STEPS} inner steps of networks of this size are too much for --budget {config.budget} on {sampler.device}")
    seconds = 1.75 * afford * (a_step / SPEED + 3 * OVERHEAD)
    return Match(found, Effort(afford, batch, held=400 if batch == 128 else 256), seconds=seconds if sampler.device.type == "cpu" else seconds / 10)


def work(module: nn.Module, x: Tensor, call: Callable[[Tensor], Tensor] | None = None) -> float:
    """Multiplications for one sample of x (B, …) in linear maps and convolutions."""
    total = 0.0

    def count(layer: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        nonlocal total
        places = given[0] if isinstance(layer, nn.ConvTranspose2d) else made
        weight = getattr(layer, "weight", None)
        if isinstance(weight, Tensor):
            total += weight.numel() * (places[0, 0].numel() if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) else 1)

    hooks = [part.register_forward_hook(count) for part in module.modules() if isinstance(part, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))]
    try:
        with torch.no_grad():
            (call or module)(x)
    finally:
        for hook in hooks:
            hook.remove()
    return total


def play(match: Match, sampler: Sampler, real: SampleSet | None, config: AuditConfig, *, scale: float) -> Outcome:
    """The probe, or why it is not run, as measurements and the record's `game`."""
    about = {"discriminator": {"where": match.opponent.where, **_described(match.opponent)}}
    if match.effort is None or real is None:
        return _missing(match.reason, about)
    batches = real.batches(256, fit=sampler.output, limit=min(REAL, real.n))
    samples = torch.cat([batch.samples for batch in batches]).to(sampler.device)
    if len(samples) < 96:
        return _missing(f"{len(samples)} real samples are too few for the game: 96 are needed", about)
    make = _maker(sampler, config, scale)
    try:
        with torch.no_grad():
            ready = settle(match.opponent, samples[:SETTLED].cpu(), make(sampler.network.module, torch.arange(SETTLED)).cpu())
    except NotThis as wrong:
        return _missing(f"the discriminator ({match.opponent.where}) is not used: {wrong}", about)
    span = sampler.output.range
    players = Players(sampler.network.module, make, ready.module.to(sampler.device), match.opponent.loss, span)
    found = duality_gap(players, samples, effort=match.effort, seed=config.seed)
    about["discriminator"]["assumptions"] = [dataclasses.asdict(entry) for entry in ready.assumptions]
    return _told(found, match.effort, about)


def _described(found: Opponent) -> dict[str, Any]:
    judge = found.judge
    if judge is None:
        return {"reason": found.reason}
    return {"family": judge.family, "parameters": judge.parameters, "loss": found.loss}


def _maker(sampler: Sampler, config: AuditConfig, scale: float) -> Callable[[nn.Module, Tensor], Tensor]:
    """Samples of a copy of the generator by the number of the latent; those to learn from come from a pool, in turn."""
    pool = latents(sampler.latent, torch.arange(POOL), seed=config.seed, scale=scale)
    network: Any = sampler.network

    def make(module: nn.Module, indices: Tensor) -> Tensor:
        learning = bool(indices[-1] < 1 << 30)
        z = pool[indices % POOL] if learning else latents(sampler.latent, indices, seed=config.seed, scale=scale)
        given = _labels(sampler, indices, config)
        made: Tensor = dataclasses.replace(network, module=module).forward(z.to(sampler.device), None if given is None else given.to(sampler.device))
        return made

    return make


def _labels(sampler: Sampler, indices: Tensor, config: AuditConfig) -> Tensor | None:
    return None if sampler.classes is None else labels(indices, sampler.classes, config.class_)


def _missing(reason: str, about: dict[str, Any]) -> Outcome:
    """One line among what was not measured."""
    return Outcome({"duality_gap": Measurement.missing(reason)}, {"game": about})


def _told(found: Gap, effort: Effort, about: dict[str, Any]) -> Outcome:
    nats, n = found.value is not None, found.n
    unbounded = "the critic's values have no bound without its penalty: there is no gap to measure"
    values = {"game_value": (found.value, "neither"), "game_upper": (found.upper, "lower"), "game_lower": (found.lower, "higher")}
    measured = {key: _number(entry, "nats", better, n) if entry else Measurement.missing(unbounded) for key, (entry, better) in values.items()}
    measured["duality_gap"] = _number(found.gap, "nats", "lower", n, found.floor) if found.gap else Measurement.missing(unbounded)
    measured["maximin_gain"] = _number(found.gain, "nats" if nats else "critic units", "lower", n)
    start = found.before.spread.value
    ratio = Estimate(*(part / start if start > 0 else 0.0 for part in dataclasses.astuple(found.after.spread)))
    measured["maximin_spread"] = _number(ratio, "ratio", "higher", n)
    measured["maximin_outputs"] = _number(found.after.outputs, "outputs", "higher", n)
    section = {**about, "chance": CHANCE if nats else None, "steps": effort.steps, "batch": effort.batch, "rates": dict(found.rates), "held_out": n,
               "before": _look(found.before), "after": _look(found.after),
               "path": [{"step": step, "value": -seen.value, **_look(seen)} for step, seen in found.path]}  # fmt: skip
    return Outcome(measured, {"game": section}, (_curve(found),))


def _look(seen: Look) -> dict[str, Any]:
    return {"spread": dataclasses.asdict(seen.spread), "outputs": dataclasses.asdict(seen.outputs)}


def _curve(found: Gap) -> Exhibit:
    start = found.before.spread.value or 1.0
    lines = {"spread, relative to the start": [seen.spread.value / start for _, seen in found.path]}
    return Exhibit("maximin", "series", "Spread of held-out outputs while G descends against the frozen discriminator, by inner step.",
                   {"x": [step for step, _ in found.path], "lines": lines})


def _number(entry: Estimate, unit: str, better: Any, n: int, floor: float | None = None) -> Measurement:
    reason = None if floor is not None else "no floor: a discriminator that is flat leaves G where it is"
    return Measurement(entry.value, entry.low, entry.high, floor, unit, better, n, reason=reason)
