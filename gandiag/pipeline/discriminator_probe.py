"""The discriminator of an audit: whether the probe of the game is worth its cost, and what it found, for the Record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.discriminator import build_sequential_discriminator
from gandiag.checkpoints.discriminator import DiscriminatorCandidate, build_discriminator, find_discriminator
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.config import AuditConfig
from gandiag.interfaces import Estimate, MetricResult
from gandiag.probes.duality_gap import (
    CHANCE_PAYOFF,
    DualityGapResult,
    GamePlayers,
    HeldOutOutputs,
    SearchBudget,
    duality_gap,
)
from gandiag.record import Exhibit, Measurement
from gandiag.sampling.latents import make_labels, sample_latents
from gandiag.sampling.sampler import Sampler
from gandiag.sampling.sources import SampleSet

MEASUREMENT_KEYS = (
    "game_value",
    "game_upper",
    "game_lower",
    "duality_gap",
    "maximin_gain",
    "maximin_spread",
    "maximin_outputs",
)
MAX_REAL_SAMPLES = 1_500  # real samples that the probe learns from, chooses by and judges by
BATCHNORM_CHECK_SAMPLES = 96  # samples of each side that a discriminator's batch norm is tried on
LATENT_POOL_SIZE = 8_192  # latents to learn from, drawn once
MIN_STEPS = 25
# By budget: the most steps of a search, and multiplications in all on a CPU (some seconds, some minutes); a GPU has 30 times as many.
SEARCH_BUDGETS = {"standard": (200, 1e11), "thorough": (500, 4e12)}
CPU_MACS_PER_SECOND, STEP_OVERHEAD_SECONDS = (
    1.2e10,
    3e-3,
)  # multiplications in a second on one core; seconds of a step beside them


@dataclass(frozen=True, slots=True)
class DualityGapPlan:
    """What a study knows of the generator's opponent. `effort`: how long is searched; `reason`: why not at all. `seconds`: about."""

    candidate: DiscriminatorCandidate
    search_budget: SearchBudget | None = None
    skip_reason: str = ""
    estimated_seconds: float = 0.0


def plan_duality_gap(sampler: Sampler | None, config: AuditConfig, *, has_real_data: bool) -> DualityGapPlan | None:
    """The discriminator that goes with a sampler's file, and whether there is cause to play; None where there is no file, or no discriminator."""
    path = None if sampler is None else sampler.subject.get("path")
    if sampler is None or path is None:
        return None
    found = find_discriminator(path, sampler.output)
    if found is None:
        return None
    reason = _why_not(found, config, has_real_data)
    if reason:
        return DualityGapPlan(found, skip_reason=reason)
    try:
        return _affordable(found, sampler, config)
    except Exception as odd:  # what fails here says so among what was not measured; the audit goes on
        return DualityGapPlan(found, skip_reason=f"the discriminator ({found.location}) cannot be called: {odd}"[:160])


def _why_not(found: DiscriminatorCandidate, config: AuditConfig, referenced: bool) -> str:
    if found.spec is None:
        return f"the discriminator ({found.location}) is not rebuilt: {found.reason}"
    if config.budget not in SEARCH_BUDGETS:
        return f"the discriminator ({found.location}) is left out by --budget {config.budget}"
    if not referenced:
        return f"the discriminator ({found.location}) is there; the game needs --real"
    if config.strict and any(entry.source == "default" for entry in found.assumptions):
        return f"the discriminator ({found.location}) needs assumptions, and --strict takes none"
    return ""


def _affordable(found: DiscriminatorCandidate, sampler: Sampler, config: AuditConfig) -> DualityGapPlan:
    """As many steps as the budget's multiplications allow."""
    assert found.spec is not None
    steps, most = SEARCH_BUDGETS[config.budget]
    batch = 128 if sampler.output.kind == "vector" else 64
    slim = torch.zeros(2 * found.spec.pack_size, *sampler.output.shape)
    judging = count_macs(
        build_sequential_discriminator(found.spec, found.spec.activation_candidates[0], found.spec.eps_candidates[0]),
        slim,
    )
    making = count_macs(
        sampler.generator.module,
        torch.zeros(2, *sampler.latent.shape),
        lambda z: sampler.generate(z, _labels(sampler, torch.arange(len(z)), config)),
    )
    a_step = 3 * batch * (making * 4 / 3 + 5 * judging)  # forward and backward of the searches, and G's forward in D's
    most *= 1.0 if sampler.device.type == "cpu" else 30.0
    afford = min(steps, int(most / (1.75 * a_step)))
    if afford < MIN_STEPS:
        return DualityGapPlan(
            found,
            skip_reason=f"{MIN_STEPS} inner steps of networks of this size are too much for --budget {config.budget} on {sampler.device}",
        )
    seconds = 1.75 * afford * (a_step / CPU_MACS_PER_SECOND + 3 * STEP_OVERHEAD_SECONDS)
    return DualityGapPlan(
        found,
        SearchBudget(afford, batch, max_held_out=400 if batch == 128 else 256),
        estimated_seconds=seconds if sampler.device.type == "cpu" else seconds / 10,
    )


def count_macs(module: nn.Module, x: Tensor, forward: Callable[[Tensor], Tensor] | None = None) -> float:
    """Multiplications for one sample of x (B, …) in linear maps and convolutions."""
    total = 0.0

    def count(layer: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        nonlocal total
        places = given[0] if isinstance(layer, nn.ConvTranspose2d) else made
        weight = getattr(layer, "weight", None)
        if isinstance(weight, Tensor):
            total += weight.numel() * (
                places[0, 0].numel() if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) else 1
            )

    hooks = [
        part.register_forward_hook(count)
        for part in module.modules()
        if isinstance(part, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))
    ]
    try:
        with torch.no_grad():
            (forward or module)(x)
    finally:
        for hook in hooks:
            hook.remove()
    return total


def run_duality_gap(
    plan: DualityGapPlan, sampler: Sampler, real: SampleSet | None, config: AuditConfig, *, scale: float
) -> MetricResult:
    """The probe, or why it is not run, as measurements and the record's `game`."""
    about = {"discriminator": {"where": plan.candidate.location, **_described(plan.candidate)}}
    if plan.search_budget is None or real is None:
        return _missing(plan.skip_reason, about)
    batches = real.iter_batches(256, output=sampler.output, limit=min(MAX_REAL_SAMPLES, real.n))
    samples = torch.cat([batch.samples for batch in batches]).to(sampler.device)
    if len(samples) < 96:
        return _missing(f"{len(samples)} real samples are too few for the game: 96 are needed", about)
    make = _maker(sampler, config, scale)
    try:
        with torch.no_grad():
            ready = build_discriminator(
                plan.candidate,
                samples[:BATCHNORM_CHECK_SAMPLES].cpu(),
                make(sampler.generator.module, torch.arange(BATCHNORM_CHECK_SAMPLES)).cpu(),
            )
    except ArchitectureMismatch as wrong:
        return _missing(f"the discriminator ({plan.candidate.location}) is not used: {wrong}", about)
    span = sampler.output.range
    players = GamePlayers(sampler.generator.module, make, ready.module.to(sampler.device), plan.candidate.loss, span)
    found = duality_gap(players, samples, budget=plan.search_budget, seed=config.seed)
    about["discriminator"]["assumptions"] = [dataclasses.asdict(entry) for entry in ready.assumptions]
    return _told(found, plan.search_budget, about)


def _described(found: DiscriminatorCandidate) -> dict[str, Any]:
    judge = found.spec
    if judge is None:
        return {"reason": found.reason}
    return {"family": judge.family, "parameters": judge.n_parameters, "loss": found.loss}


def _maker(sampler: Sampler, config: AuditConfig, scale: float) -> Callable[[nn.Module, Tensor], Tensor]:
    """Samples of a copy of the generator by the number of the latent; those to learn from come from a pool, in turn."""
    pool = sample_latents(sampler.latent, torch.arange(LATENT_POOL_SIZE), seed=config.seed, scale=scale)
    network: Any = sampler.generator

    def make(module: nn.Module, indices: Tensor) -> Tensor:
        learning = bool(indices[-1] < 1 << 30)
        z = (
            pool[indices % LATENT_POOL_SIZE]
            if learning
            else sample_latents(sampler.latent, indices, seed=config.seed, scale=scale)
        )
        given = _labels(sampler, indices, config)
        made: Tensor = dataclasses.replace(network, module=module).forward(
            z.to(sampler.device), None if given is None else given.to(sampler.device)
        )
        return made

    return make


def _labels(sampler: Sampler, indices: Tensor, config: AuditConfig) -> Tensor | None:
    return None if sampler.classes is None else make_labels(indices, sampler.classes, config.class_)


def _missing(reason: str, about: dict[str, Any]) -> MetricResult:
    """One line among what was not measured."""
    return MetricResult({"duality_gap": Measurement.missing(reason)}, {"game": about})


def _told(found: DualityGapResult, effort: SearchBudget, about: dict[str, Any]) -> MetricResult:
    nats, n = found.value is not None, found.n_held_out
    unbounded = "the critic's values have no bound without its penalty: there is no gap to measure"
    values = {
        "game_value": (found.value, "neither"),
        "game_upper": (found.upper, "lower"),
        "game_lower": (found.lower, "higher"),
    }
    measured = {
        key: _number(entry, "nats", better, n) if entry else Measurement.missing(unbounded)
        for key, (entry, better) in values.items()
    }
    measured["duality_gap"] = (
        _number(found.gap, "nats", "lower", n, found.floor) if found.gap else Measurement.missing(unbounded)
    )
    measured["maximin_gain"] = _number(found.gain, "nats" if nats else "critic units", "lower", n)
    start = found.before.mean_distance.value
    ratio = Estimate(*(part / start if start > 0 else 0.0 for part in dataclasses.astuple(found.after.mean_distance)))
    measured["maximin_spread"] = _number(ratio, "ratio", "higher", n)
    measured["maximin_outputs"] = _number(found.after.effective_outputs, "outputs", "higher", n)
    section = {
        **about,
        "chance": CHANCE_PAYOFF if nats else None,
        "steps": effort.steps,
        "batch": effort.batch_size,
        "rates": dict(found.learning_rates),
        "held_out": n,
        "before": _look(found.before),
        "after": _look(found.after),
        "path": [{"step": step, "value": -seen.value, **_look(seen)} for step, seen in found.history],
    }
    return MetricResult(measured, {"game": section}, (_curve(found),))


def _look(seen: HeldOutOutputs) -> dict[str, Any]:
    return {"spread": dataclasses.asdict(seen.mean_distance), "outputs": dataclasses.asdict(seen.effective_outputs)}


def _curve(found: DualityGapResult) -> Exhibit:
    start = found.before.mean_distance.value or 1.0
    lines = {"spread, relative to the start": [seen.mean_distance.value / start for _, seen in found.history]}
    return Exhibit(
        "maximin",
        "series",
        "Spread of held-out outputs while G descends against the frozen discriminator, by inner step.",
        {"x": [step for step, _ in found.history], "lines": lines},
    )


def _number(entry: Estimate, unit: str, better: Any, n: int, floor: float | None = None) -> Measurement:
    reason = None if floor is not None else "no floor: a discriminator that is flat leaves G where it is"
    return Measurement(entry.value, entry.low, entry.high, floor, unit, better, n, reason=reason)
