"""Checks for plug-ins, to be called from the plug-in's own tests; each raises a PluginError that names the broken rule.

check_metric(MedianGap)         a metric class or factory                  entry point gandiag.metrics
check_features(corners)         a factory(ExtractorRequest) -> Extractor   entry point gandiag.features
check_format(one_line)          a render(record) -> str                    entry point gandiag.formats
check_gate_format(chat)         a render(results) -> str                   entry point gandiag.gates
check_model(build)              a factory of networks                      --model pkg.mod:build
check_remedy(SMOOTHING)         a Remedy                                   entry point gandiag.remedies

For loaders and readers of checkpoints see `gandiag.testing.checkpoint_checks`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gandiag.errors import ExitCode, LoadError, PluginError
from gandiag.features.extractors import Extractor, ExtractorRequest
from gandiag.features.view_names import parse_view_name
from gandiag.interfaces import Batch, Metric, MetricResult, OutputSpec
from gandiag.metrics.registry import MetricContext, create_metrics
from gandiag.record import Finding, Measurement, Record, Score, to_json_value
from gandiag.testing.toy_mixtures import Corruption, make_mixture
from gandiag.verdict.gate import GateResult, gate, make_error_result

N_SAMPLES, DIM = 200, 8
UNSAFE_TEXT = "</script><img src=x onerror=alert(1)>\x1b[31m|`\n::error::x"


def require(condition: bool, problem: str, remedy: str) -> None:
    """PluginError unless the condition holds."""
    if not condition:
        raise PluginError(f"the plug-in breaks its contract: {problem}", remedy)


def check_metric(factory: Any, *, view: str = "identity", n: int = N_SAMPLES) -> tuple[Metric, ...]:
    """Check a metric class (view, n, seed, referenced) or a function of a MetricContext.

    It runs on toy data with and without collapse. Required are: a key; hashable needs; numbers that are finite, or null
    with a reason; `low <= value <= high`; a direction; the same result twice; unchanged inputs. Returns the metrics
    that were created.
    """
    context = MetricContext(view, n, 0, OutputSpec("vector", (DIM,)), True, False)
    metrics = tuple(create_metrics(factory, context))
    mixture = make_mixture(dim=DIM, n_modes=5)
    real = mixture.sample(2 * n, seed=1)
    fakes = mixture.sample(n, seed=2), Corruption(point="on").sample(mixture, n, seed=2)
    for metric in metrics:
        require(
            isinstance(metric, Metric),
            f"{type(metric).__name__} has no key, needs() or measure()",
            "see gandiag.interfaces.Metric",
        )
        for fake in fakes:
            _check_measure(metric, view, real, fake)
    return metrics


def _check_measure(metric: Metric, view: str, real: Tensor, fake: Tensor) -> None:
    real_copy, fake_copy = real.clone(), fake.clone()
    first, second = (metric.measure(_run_statistics(metric, view, real, fake)) for _ in range(2))
    _check_result(metric, first)
    first_json, second_json = (json.dumps(to_json_value(result), sort_keys=True) for result in (first, second))
    require(
        first_json == second_json,
        f"{metric.key} gives a different result the second time",
        "draw from a torch.Generator of its own, seeded by `seed`",
    )
    is_unchanged = torch.equal(real, real_copy) and torch.equal(fake, fake_copy)
    require(is_unchanged, f"{metric.key} changes its input", "work on a copy")


def _run_statistics(metric: Metric, view: str, real: Tensor, fake: Tensor) -> dict[str, dict[Any, Any]]:
    """What the engine passes to measure(): the result of every needed statistic, by role."""
    needs = metric.needs()
    require(
        isinstance(needs, Mapping),
        f"{metric.key}.needs() returned a {type(needs).__name__}",
        "return {role: frozenset of statistics}",
    )
    results: dict[str, dict[Any, Any]] = {}
    for role, statistics in needs.items():
        rows = real if role == "real" else fake
        for statistic in statistics:
            accumulator = statistic.start()
            accumulator.update(Batch(rows, torch.arange(len(rows)), features={view: rows}))
            results.setdefault(role, {})[statistic] = accumulator.result()
    return results


def _check_result(metric: Metric, result: Any) -> None:
    require(
        isinstance(result, MetricResult),
        f"{metric.key}.measure() returned a {type(result).__name__}",
        "return a gandiag.interfaces.MetricResult",
    )
    for key, measurement in result.measurements.items():
        require(
            isinstance(measurement, Measurement),
            f"{key} is a {type(measurement).__name__}",
            "make it a gandiag.record.Measurement",
        )
        _check_measurement(key, measurement)


def _check_measurement(key: str, measurement: Measurement) -> None:
    interval = (measurement.low, measurement.value, measurement.high)
    numbers = [number for number in interval if number is not None]
    is_finite = bool(torch.isfinite(torch.tensor(numbers)).all())
    require(is_finite, f"{key} is {numbers}", "return Measurement.missing(reason) instead of NaN or infinity")
    require(numbers == sorted(numbers), f"{key} has low, value, high = {numbers}", "return low <= value <= high")
    is_ok = measurement.status == "ok"
    require(is_ok or bool(measurement.reason), f"{key} is {measurement.status} without a reason", "state the reason")
    has_value = measurement.value is not None
    require(has_value or not is_ok, f"{key} is ok but has no value", "return Measurement.missing(reason)")
    require(
        measurement.better in ("higher", "lower", "neither"),
        f"{key} has the direction {measurement.better!r}",
        'set better to "higher", "lower" or "neither"',
    )


def check_features(
    factory: Callable[[ExtractorRequest], Any], *, name: str = "plugin", output: OutputSpec | None = None
) -> Extractor:
    """Check a factory of extractors.

    Required are (B, dim) float32 on the CPU, finite, the same in any batching and twice, and unchanged inputs.
    """
    output = output or OutputSpec("image", (3, 16, 16), (-1.0, 1.0))
    extractor: Extractor = factory(ExtractorRequest(parse_view_name(name), output))
    require(
        isinstance(extractor, Extractor),
        f"the factory returned a {type(extractor).__name__} without name, dim, fingerprint or __call__",
        "see gandiag.features.extractors.Extractor",
    )
    samples = torch.rand(7, *output.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    samples_copy = samples.clone()
    features, repeated = extractor(samples, output), extractor(samples, output)
    in_parts = torch.cat([extractor(rows, output) for rows in torch.split(samples, 3)])
    shape, dtype, device = tuple(features.shape), features.dtype, features.device
    require(
        shape == (7, extractor.dim),
        f"the features of 7 samples have shape {shape}, and dim is {extractor.dim}",
        "return (B, dim)",
    )
    is_cpu_float = dtype == torch.float32 and device.type == "cpu"
    require(is_cpu_float, f"the features are {dtype} on {device}", "return float32 on the CPU")
    is_finite = bool(features.isfinite().all())
    require(is_finite, "the features contain NaN or infinity", "clamp the denominators")
    is_repeatable = torch.equal(features, repeated)
    require(is_repeatable, "the features differ the second time", "use eval mode, and no random numbers")
    is_batch_independent = torch.allclose(features, in_parts, atol=1e-4)
    require(
        is_batch_independent,
        "the features of a sample depend on the rest of its batch",
        "use eval mode, and no batch statistics",
    )
    require(torch.equal(samples, samples_copy), "the extractor changes its input", "work on a copy")
    require(bool(str(extractor.fingerprint)), "the fingerprint is empty", "name the weights and the code version")
    return extractor


def check_format(render: Callable[[Record], str]) -> None:
    """Check a format of `gandiag report` on every kind of record, also an empty one and one with unsafe strings."""
    for record in _example_records():
        _check_text(render(record))


def check_gate_format(render: Callable[[Sequence[GateResult]], str]) -> None:
    """Check a format of `gandiag gate` for every exit code: results with different codes must not look alike."""
    results = [gate(record) for record in _example_records()]
    require(results[0].code is ExitCode.OK, "the check itself is broken", "report it as a bug of gandiag")
    results.append(make_error_result(UNSAFE_TEXT, LoadError(UNSAFE_TEXT, UNSAFE_TEXT)))
    texts = [_check_text(render([result])) for result in results]
    is_distinct = len(set(texts)) == len(texts)
    require(is_distinct, "two subjects with different results look alike", "show the subject, the code and the checks")


def check_model(factory: Callable[[], nn.Module], **settings: Any) -> None:
    """Check what `--model` names: a module that can be called with latents, the same whenever it is built.

    `settings`: fields of AuditConfig such as latent_dim and classes.
    """
    from gandiag.checkpoints.loader import wrap_module
    from gandiag.config import resolve_config

    modules = factory(), factory()
    is_module = isinstance(modules[0], nn.Module)
    require(is_module, f"the factory returned a {type(modules[0]).__name__}", "return a torch.nn.Module")
    shapes = [{name: tuple(tensor.shape) for name, tensor in module.state_dict().items()} for module in modules]
    require(
        shapes[0] == shapes[1],
        "the factory builds another network the second time",
        "take every choice from the arguments (--init)",
    )
    wrap_module(modules[0], resolve_config(settings).config)


def check_remedy(remedy: Any) -> None:
    """Check a remedy of the trainer: it has a title and a source, and a ring trains with it without a NaN."""
    from gandiag.trainer.gan_trainer import make_trainer
    from gandiag.trainer.recipes import get_default_recipe
    from gandiag.trainer.remedies.base import Remedy
    from gandiag.trainer.toy_data import make_ring8

    is_remedy = isinstance(remedy, Remedy)
    require(is_remedy, f"it is a {type(remedy).__name__}", "make it a gandiag.trainer.remedies.base.Remedy")
    has_source = bool(remedy.title and remedy.source)
    require(has_source, f"{remedy.name} has no title or no source", "state what it is and where it was published")
    recipe = get_default_recipe("ring8")
    trainers = [make_trainer(recipe, make_ring8(), remedy, seed=0, unroll_steps=0) for _ in range(2)]
    losses = [[trainer.step() for _ in range(3)] for trainer in trainers]
    require(
        losses[0] == losses[1],
        f"{remedy.name} draws random numbers that do not depend on the seed",
        "draw from TrainingBatch.uniform only",
    )
    is_finite = bool(torch.isfinite(torch.tensor(losses[0])).all())
    require(is_finite, f"{remedy.name} makes the losses NaN or infinite", "check it on 512 samples of ring8")


def _example_records() -> tuple[Record, ...]:
    n_fake, n_real = N_SAMPLES, 2 * N_SAMPLES
    low_score, high_score = (
        Score(value, low, high, n_fake=n_fake, n_real=n_real) for value, low, high in ((0.02, 0, 0.05), (0.6, 0.5, 0.7))
    )
    unsafe = {UNSAFE_TEXT: Measurement(0.5, 0.4, 0.6, unit=UNSAFE_TEXT), "x": Measurement.missing(UNSAFE_TEXT)}
    finding = Finding(UNSAFE_TEXT, "error", UNSAFE_TEXT, {UNSAFE_TEXT: UNSAFE_TEXT})
    return (
        Record("healthy", (), low_score, {"path": "good.pt"}, {}),
        Record("collapsed", ("partial", UNSAFE_TEXT), high_score, {"path": UNSAFE_TEXT}, unsafe, findings=(finding,)),
        Record("inconclusive", (), Score(None, None, None), {}, {}),
    )


def _check_text(text: Any) -> str:
    require(
        isinstance(text, str) and bool(text.strip()),
        f"the format returned {type(text).__name__} {str(text)[:20]!r}",
        "return the whole document as text",
    )
    require(
        "\x1b" not in text,
        "a control character from a checkpoint reaches the output",
        "pass every string through gandiag.report.formatting.clean",
    )
    return str(text)
