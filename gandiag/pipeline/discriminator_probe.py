"""Finds the discriminator of an audited generator, plans the duality-gap probe within the budget, and runs it."""

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
from gandiag.probes.duality_gap import CHANCE_PAYOFF, DualityGapResult, duality_gap
from gandiag.probes.game import HELD_OUT_START, MIN_REAL_SAMPLES, GamePlayers, HeldOutOutputs, SearchBudget
from gandiag.record import BetterDirection, Exhibit, Measurement
from gandiag.report.assumptions import assumption_document
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
MAX_REAL_SAMPLES = 1_500  # real samples for learning, selection and evaluation together
BATCHNORM_CHECK_SAMPLES = 96  # real and generated samples each that check a discriminator's BatchNorm statistics
LATENT_POOL_SIZE = 8_192  # latents for learning, drawn once
MIN_STEPS = 25
# By budget: the most steps of one search, and multiplications in total on a CPU (seconds, minutes).
SEARCH_BUDGETS = {"standard": (200, 1e11), "thorough": (500, 4e12)}
SEARCH_PASSES = 1.75  # steps that a search runs for each step asked: pilots of a quarter from four starts
CPU_MACS_PER_SECOND = 1.2e10  # multiplications per second on one core
STEP_OVERHEAD_SECONDS = 3e-3  # time of a step beside them
GPU_SPEEDUP_BUDGET, GPU_SPEEDUP_SECONDS = 30.0, 10


@dataclass(frozen=True, slots=True)
class DualityGapPlan:
    """The discriminator found, and either a search budget or the reason for skipping the probe."""

    candidate: DiscriminatorCandidate
    search_budget: SearchBudget | None = None
    skip_reason: str = ""
    estimated_seconds: float = 0.0


def plan_duality_gap(sampler: Sampler | None, config: AuditConfig, *, has_real_data: bool) -> DualityGapPlan | None:
    """Find the discriminator of a sampler's file and plan the probe; None without a file or a discriminator."""
    path = None if sampler is None else sampler.subject.get("path")
    if sampler is None or path is None:
        return None
    candidate = find_discriminator(path, sampler.output)
    if candidate is None:
        return None
    skip_reason = _find_skip_reason(candidate, config, has_real_data)
    if skip_reason:
        return DualityGapPlan(candidate, skip_reason=skip_reason)
    try:
        return _plan_search(candidate, sampler, config)
    except Exception as problem:  # the audit continues without the probe, and its record gives the reason
        reason = f"the discriminator ({candidate.location}) cannot be called: {problem}"
        return DualityGapPlan(candidate, skip_reason=reason[:160])


def _find_skip_reason(candidate: DiscriminatorCandidate, config: AuditConfig, has_real_data: bool) -> str:
    name = f"the discriminator ({candidate.location})"
    if candidate.spec is None:
        return f"{name} cannot be rebuilt: {candidate.reason}"
    if config.budget not in SEARCH_BUDGETS:
        return f"{name} is skipped with --budget {config.budget}"
    if not has_real_data:
        return f"{name} was found, but the duality gap needs --real"
    if config.strict and any(entry.source == "default" for entry in candidate.assumptions):
        return f"{name} needs assumptions, which --strict forbids"
    return ""


def _plan_search(candidate: DiscriminatorCandidate, sampler: Sampler, config: AuditConfig) -> DualityGapPlan:
    """As many steps as the budget's multiplications allow."""
    spec = candidate.spec
    assert spec is not None
    max_steps, max_macs = SEARCH_BUDGETS[config.budget]
    batch_size, max_held_out = (128, 400) if sampler.output.kind == "vector" else (64, 256)
    on_cpu = sampler.device.type == "cpu"

    def generate(z: Tensor) -> Tensor:
        return sampler.generate(z, _make_labels(sampler, torch.arange(len(z)), config))

    discriminator = build_sequential_discriminator(spec, spec.activation_candidates[0], spec.eps_candidates[0])
    discriminator_macs = count_macs(discriminator, torch.zeros(2 * spec.pack_size, *sampler.output.shape))
    generator_macs = count_macs(sampler.generator.module, torch.zeros(2, *sampler.latent.shape), generate)
    # Forward and backward of the three searches, and G's forward pass in D's.
    step_macs = 3 * batch_size * (generator_macs * 4 / 3 + 5 * discriminator_macs)
    max_macs *= 1.0 if on_cpu else GPU_SPEEDUP_BUDGET
    steps = min(max_steps, int(max_macs / (SEARCH_PASSES * step_macs)))
    if steps < MIN_STEPS:
        reason = f"networks of this size are too slow for {MIN_STEPS} search steps"
        return DualityGapPlan(candidate, skip_reason=f"{reason} with --budget {config.budget} on {sampler.device}")
    seconds = SEARCH_PASSES * steps * (step_macs / CPU_MACS_PER_SECOND + 3 * STEP_OVERHEAD_SECONDS)
    return DualityGapPlan(
        candidate,
        SearchBudget(steps, batch_size, max_held_out=max_held_out),
        estimated_seconds=seconds if on_cpu else seconds / GPU_SPEEDUP_SECONDS,
    )


def count_macs(module: nn.Module, x: Tensor, forward: Callable[[Tensor], Tensor] | None = None) -> float:
    """Multiply-accumulate operations for one sample of x (B, …) in linear layers and convolutions."""
    total = 0.0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, Tensor):
            return
        n_positions = 1
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            n_positions = (inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output)[0, 0].numel()
        total += weight.numel() * n_positions

    counted = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    hooks = [part.register_forward_hook(count) for part in module.modules() if isinstance(part, counted)]
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
    """Run the probe, or record why it is skipped: measurements and the record's `game` section."""
    candidate, output = plan.candidate, sampler.output
    discriminator = {"where": candidate.location, **_describe_candidate(candidate)}
    if plan.search_budget is None or real is None:
        return _skipped_result(plan.skip_reason, discriminator)
    batches = real.iter_batches(256, output=output, limit=min(MAX_REAL_SAMPLES, real.n))
    samples = torch.cat([batch.samples for batch in batches]).to(sampler.device)
    if len(samples) < MIN_REAL_SAMPLES:
        reason = f"{len(samples)} real samples are too few for the duality gap: {MIN_REAL_SAMPLES} are needed"
        return _skipped_result(reason, discriminator)
    sample = _make_sample_function(sampler, config, scale)
    try:
        with torch.no_grad():
            fake = sample(sampler.generator.module, torch.arange(BATCHNORM_CHECK_SAMPLES))
            rebuilt = build_discriminator(candidate, samples[:BATCHNORM_CHECK_SAMPLES].cpu(), fake.cpu())
    except ArchitectureMismatch as problem:
        return _skipped_result(f"the discriminator ({candidate.location}) is not used: {problem}", discriminator)
    players = GamePlayers(
        sampler.generator.module, sample, rebuilt.module.to(sampler.device), candidate.loss, output.range
    )
    result = duality_gap(players, samples, budget=plan.search_budget, seed=config.seed)
    discriminator["assumptions"] = [assumption_document(entry) for entry in rebuilt.assumptions]
    section = _game_section(result, plan.search_budget, discriminator)
    return MetricResult(_gap_measurements(result), {"game": section}, (_plot_maximin(result),))


def _describe_candidate(candidate: DiscriminatorCandidate) -> dict[str, Any]:
    spec = candidate.spec
    if spec is None:
        return {"reason": candidate.reason}
    return {"family": spec.family, "parameters": spec.n_parameters, "loss": candidate.loss}


def _make_sample_function(sampler: Sampler, config: AuditConfig, scale: float) -> Callable[[nn.Module, Tensor], Tensor]:
    """(copy of the generator, latent numbers) -> samples. Latents for learning come from a pool, in turn."""
    pool = sample_latents(sampler.latent, torch.arange(LATENT_POOL_SIZE), seed=config.seed, scale=scale)
    generator: Any = sampler.generator

    def sample(module: nn.Module, indices: Tensor) -> Tensor:
        if int(indices[-1]) < HELD_OUT_START:
            z = pool[indices % LATENT_POOL_SIZE]
        else:
            z = sample_latents(sampler.latent, indices, seed=config.seed, scale=scale)
        labels = _make_labels(sampler, indices, config)
        copy = dataclasses.replace(generator, module=module)
        samples: Tensor = copy.forward(z.to(sampler.device), None if labels is None else labels.to(sampler.device))
        return samples

    return sample


def _make_labels(sampler: Sampler, indices: Tensor, config: AuditConfig) -> Tensor | None:
    return None if sampler.classes is None else make_labels(indices, sampler.classes, config.class_)


def _skipped_result(reason: str, discriminator: dict[str, Any]) -> MetricResult:
    return MetricResult({"duality_gap": Measurement.missing(reason)}, {"game": {"discriminator": discriminator}})


def _gap_measurements(result: DualityGapResult) -> dict[str, Measurement]:
    """The seven measurements of the probe; the bounds and the gap are missing for a loss without bounds."""
    n, in_nats = result.n_held_out, result.value is not None

    def bounded(estimate: Estimate | None, better: BetterDirection, floor: float | None = None) -> Measurement:
        if estimate is None:
            return Measurement.missing("a critic's values are unbounded without its penalty, so the gap is not defined")
        return _measurement(estimate, "nats", better, n, floor)

    start = result.before.mean_distance.value
    after = dataclasses.astuple(result.after.mean_distance)
    spread = Estimate(*(part / start if start > 0 else 0.0 for part in after))
    return {
        "game_value": bounded(result.value, "neither"),
        "game_upper": bounded(result.upper, "lower"),
        "game_lower": bounded(result.lower, "higher"),
        "duality_gap": bounded(result.gap, "lower", result.floor),
        "maximin_gain": _measurement(result.gain, "nats" if in_nats else "critic units", "lower", n),
        "maximin_spread": _measurement(spread, "ratio", "higher", n),
        "maximin_outputs": _measurement(result.after.effective_outputs, "outputs", "higher", n),
    }


def _measurement(
    estimate: Estimate, unit: str, better: BetterDirection, n: int, floor: float | None = None
) -> Measurement:
    reason = None if floor is not None else "no floor: against a flat discriminator G does not move"
    return Measurement(estimate.value, estimate.low, estimate.high, floor, unit, better, n, reason=reason)


def _game_section(result: DualityGapResult, budget: SearchBudget, discriminator: dict[str, Any]) -> dict[str, Any]:
    """The record's `game`."""
    return {
        "discriminator": discriminator,
        "chance": CHANCE_PAYOFF if result.value is not None else None,
        "steps": budget.steps,
        "batch": budget.batch_size,
        "rates": dict(result.learning_rates),
        "held_out": result.n_held_out,
        "before": _describe_outputs(result.before),
        "after": _describe_outputs(result.after),
        "path": [
            {"step": step, "value": -outputs.value, **_describe_outputs(outputs)} for step, outputs in result.history
        ],
    }


def _describe_outputs(outputs: HeldOutOutputs) -> dict[str, Any]:
    return {
        "spread": dataclasses.asdict(outputs.mean_distance),
        "outputs": dataclasses.asdict(outputs.effective_outputs),
    }


def _plot_maximin(result: DualityGapResult) -> Exhibit:
    start = result.before.mean_distance.value or 1.0
    spreads = [outputs.mean_distance.value / start for _, outputs in result.history]
    return Exhibit(
        "maximin",
        "series",
        "Spread of held-out outputs while G descends against the frozen discriminator, by inner step.",
        {"x": [step for step, _ in result.history], "lines": {"spread, relative to the start": spreads}},
    )
