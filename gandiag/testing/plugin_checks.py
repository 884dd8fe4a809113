"""Checks for plug-ins: a few lines in the plug-in's own tests, each raising a PluginError that says what is not kept.

check_metric(MedianGap)         a metric class or factory        entry point gandiag.metrics
check_features(corners)         a factory(Request) -> Extractor  entry point gandiag.features
check_format(one_line)          a render(record) -> str          entry point gandiag.formats
check_gate_format(slack)        a render(gated) -> str           entry point gandiag.gates
check_model(build)              a factory of networks            --model pkg.mod:build
check_remedy(SMOOTHING)         a Remedy                         entry point gandiag.remedies
check_loader(rebuild, "g.pth")  a rebuild(weights, config)       entry point gandiag.loaders
check_reader(READER, "g.xyz")   a Reader of another kind of file entry point gandiag.readers
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gandiag.errors import ExitCode, LoadError, PluginError
from gandiag.features.extractor_request import ExtractorRequest
from gandiag.features.extractors import Extractor
from gandiag.features.view_names import parse_view_name
from gandiag.interfaces import Batch, Metric, MetricResult, OutputSpec
from gandiag.pipeline.plan import MetricContext
from gandiag.record import Finding, Measurement, Record, Score, to_json_value
from gandiag.testing.toy_mixtures import Corruption, make_mixture
from gandiag.verdict.gate import GateResult, gate, make_error_result

N_SAMPLES, DIM = 200, 8
UNSAFE_TEXT = "</script><img src=x onerror=alert(1)>\x1b[31m|`\n::error::x"


def check_metric(factory: Any, *, view: str = "identity", n: int = N_SAMPLES) -> tuple[Metric, ...]:
    """A metric class (view, n, seed, referenced) or a function of a Question: measured on a toy world, with and without collapse.

    Kept are: a key; hashable needs; numbers that are finite or null with a reason, `low <= value <= high`, a direction; the same
    result twice; the inputs unchanged. Returns the metrics that it made.
    """
    output = OutputSpec("vector", (DIM,))
    made = (
        [factory(view, n, 0, True)]
        if isinstance(factory, type)
        else list(factory(MetricContext(view, n, 0, output, True, False)))
    )
    world = make_mixture(dim=DIM, n_modes=5)
    real = world.sample(2 * n, seed=1)
    for metric in made:
        _demand(
            isinstance(metric, Metric),
            f"{type(metric).__name__} has no key, needs() or measure()",
            "see gandiag.interfaces.Metric",
        )
        for fake in (world.sample(n, seed=2), Corruption(point="on").sample(world, n, seed=2)):
            kept = real.clone(), fake.clone()
            first, again = (metric.measure(_results(metric, view, real, fake)) for _ in range(2))
            _outcome(metric, first)
            same = json.dumps(to_json_value(first), sort_keys=True) == json.dumps(to_json_value(again), sort_keys=True)
            _demand(
                same,
                f"{metric.key} gives another result the second time",
                "draw from a torch.Generator of your own, seeded by `seed`",
            )
            _demand(
                torch.equal(real, kept[0]) and torch.equal(fake, kept[1]),
                f"{metric.key} changes its input",
                "work on a copy",
            )
    return tuple(made)


def check_features(
    factory: Callable[[ExtractorRequest], Any], *, name: str = "plugin", output: OutputSpec | None = None
) -> Extractor:
    """A factory of extractors: (B, dim) float32 on the CPU, finite, the same in any batching and twice, the input unchanged."""
    shape = output or OutputSpec("image", (3, 16, 16), (-1.0, 1.0))
    made: Extractor = factory(ExtractorRequest(parse_view_name(name), shape))
    _demand(
        isinstance(made, Extractor),
        f"it made a {type(made).__name__} without name, dim, fingerprint or call",
        "see gandiag.features.extractors.Extractor",
    )
    samples = torch.rand(7, *shape.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    kept = samples.clone()
    whole, again = made(samples, shape), made(samples, shape)
    parts = torch.cat([made(rows, shape) for rows in torch.split(samples, 3)])
    _demand(
        tuple(whole.shape) == (7, made.dim),
        f"it gave {tuple(whole.shape)} for 7 samples and dim {made.dim}",
        "return (B, dim)",
    )
    _demand(
        whole.dtype == torch.float32 and whole.device.type == "cpu",
        f"it gave {whole.dtype} on {whole.device}",
        "return float32 on the CPU",
    )
    _demand(bool(whole.isfinite().all()), "it gave NaN or infinity", "clamp what is divided by")
    _demand(
        torch.equal(whole, again), "it gives other features the second time", "use eval mode, and no random numbers"
    )
    _demand(
        torch.allclose(whole, parts, atol=1e-4),
        "features depend on the batch that a sample is in",
        "use eval mode, and no batch statistics",
    )
    _demand(torch.equal(samples, kept), "it changes its input", "work on a copy")
    _demand(bool(str(made.fingerprint)), "its fingerprint is empty", "name the weights and the version of the code")
    return made


def check_format(render: Callable[[Record], str]) -> None:
    """A format of `gandiag report`: text for every kind of record, the bare one and one whose strings attack included."""
    for record in _records():
        _text(render(record))


def check_gate_format(render: Callable[[Sequence[GateResult]], str]) -> None:
    """A format of `gandiag gate`: text for every code; one that fails does not read as one that passes."""
    passed, *rest = [gate(record) for record in _records()]
    _demand(passed.code is ExitCode.OK, "the check itself is broken", "report it")
    shown = [
        _text(render([one]))
        for one in (passed, *rest, make_error_result(UNSAFE_TEXT, LoadError(UNSAFE_TEXT, UNSAFE_TEXT)))
    ]
    _demand(
        len({*shown}) == len(shown), "two subjects with different results look alike", "show subject, code and checks"
    )


def check_model(factory: Callable[[], nn.Module], **settings: Any) -> None:
    """What `--model` names: a module that can be called with latents, built the same twice. `settings`: latent_dim, classes …"""
    from gandiag.checkpoints.loader import wrap_module
    from gandiag.config import resolve_config

    one, two = factory(), factory()
    _demand(isinstance(one, nn.Module), f"it made a {type(one).__name__}", "return a torch.nn.Module")
    shapes = [{name: tuple(entry.shape) for name, entry in net.state_dict().items()} for net in (one, two)]
    _demand(
        shapes[0] == shapes[1],
        "it builds another network the second time",
        "take every choice from the arguments (--init)",
    )
    wrap_module(one, resolve_config(settings).config)


def check_loader(
    rebuild: Callable[..., Any],
    path: str,
    *,
    z: Tensor | None = None,
    labels: Tensor | None = None,
    samples: Tensor | None = None,
) -> None:
    """A family of checkpoints: it takes the file's weights, leaves everything else to others, and gives the reference samples to 1e-4.

    z (B, *latent), labels (B,) and samples (B, *output) are what the family's own code makes; without them only the contract is checked.
    """
    from gandiag.checkpoints.architectures.base import RebuiltGenerator
    from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
    from gandiag.checkpoints.inference.sequential import SequentialSpec, build_sequential_generator
    from gandiag.checkpoints.readers import read_checkpoint
    from gandiag.checkpoints.state_dict import Weights, cast_to_float32, find_generator_weights
    from gandiag.config import AuditConfig

    weights = cast_to_float32(find_generator_weights(read_checkpoint(path).tree))
    made = rebuild(weights, AuditConfig())
    _demand(
        isinstance(made, (RebuiltGenerator, SequentialSpec)),
        f"it returned a {type(made).__name__}",
        "return a Ready, or a Blueprint for a plain chain",
    )
    for kept in (dict(list(weights.tensors.items())[1:]), {**weights.tensors, "gandiag.stranger": torch.zeros(3, 3)}):
        try:
            rebuild(Weights(kept), AuditConfig())
        except ArchitectureMismatch:
            continue
        _demand(
            False,
            "it takes weights with a tensor missing, or one too many",
            "raise NotThis unless every key is used (see ready.fitted)",
        )
    module = (
        made.module
        if isinstance(made, RebuiltGenerator)
        else build_sequential_generator(made, made.default_activation, 1e-5)
    )
    _demand(
        not module.training and not any(entry.requires_grad for entry in module.parameters()),
        "its network is in training mode",
        "end with ready.fitted",
    )
    if isinstance(made, RebuiltGenerator) and z is not None and samples is not None:
        from gandiag.checkpoints.module_adapter import call_generator

        out = call_generator(module, z.reshape(len(z), *made.latent.shape), labels, (made.condition, made.classes))
        apart = float((out - samples.reshape(out.shape)).abs().max())
        _demand(apart <= 1e-4, f"its samples are {apart:.2g} away from the reference", "compare layer by layer")


def check_reader(reader: Any, path: str) -> None:
    """A kind of file: it takes this one, leaves other kinds alone, and gives the same dense CPU tensors twice.

    Damaged files (cut short, a byte changed) end in a LoadError, or are read; nothing else may come out.
    """
    from gandiag.checkpoints.plugin_readers import HEADER_BYTES, Reader
    from gandiag.checkpoints.tensor_checks import check_tensors, iter_tensors

    _demand(
        isinstance(reader, Reader),
        f"it is a {type(reader).__name__} without takes() or read()",
        "see gandiag.checkpoints.plugin_readers.Reader",
    )
    whole = Path(path).read_bytes()
    _demand(
        bool(reader.takes(whole[:HEADER_BYTES], Path(path))),
        f"it does not take {Path(path).name}",
        "decide by the first bytes",
    )
    for head in (b"PK\x03\x04" + bytes(60), b"\x80\x02}q\x00.", b"<html><body>", b"", bytes(HEADER_BYTES)):
        _demand(
            not reader.takes(head, Path("other.pt")),
            f"it takes a file that begins with {head[:6]!r}",
            "look for the format's own first bytes",
        )
    first, again = (list(iter_tensors(reader.read(Path(path)))) for _ in range(2))
    _demand(any(entry.ndim >= 2 for _, entry in first), "it found no weights", "return tensors by name")
    check_tensors(dict(first), 1 << 62)
    same = [name for name, _ in first] == [name for name, _ in again] and all(
        torch.equal(a, b) for (_, a), (_, b) in zip(first, again, strict=True)
    )
    _demand(same, "it gives other tensors the second time", "read the file and nothing else")
    with tempfile.TemporaryDirectory() as folder:
        damaged = Path(folder) / Path(path).name
        for content in (
            whole[: len(whole) // 2],
            whole[:HEADER_BYTES],
            whole[:-1] + bytes([whole[-1] ^ 0xFF]),
            whole[:40] + b"\xff" + whole[41:],
        ):
            damaged.write_bytes(content)
            try:
                reader.read(damaged)
            except LoadError:
                continue
            except Exception as broken:
                _demand(
                    False,
                    f"a damaged file ends in {type(broken).__name__}: {broken}",
                    "raise LoadError with a sentence and a hint",
                )


def check_remedy(remedy: Any) -> None:
    """A remedy of the reference trainer: named, sourced, and a ring trains with it for a few steps without a NaN."""
    from gandiag.trainer.gan_trainer import make_trainer
    from gandiag.trainer.recipes import get_default_recipe
    from gandiag.trainer.remedies.base import Remedy
    from gandiag.trainer.toy_data import make_ring8

    _demand(
        isinstance(remedy, Remedy), f"it is a {type(remedy).__name__}", "make a gandiag.trainer.remedies.base.Remedy"
    )
    _demand(
        bool(remedy.title and remedy.source),
        f"{remedy.name} has no title or no source",
        "say what it is, and where it was published",
    )
    games = [make_trainer(get_default_recipe("ring8"), make_ring8(), remedy, seed=0, unroll_steps=0) for _ in range(2)]
    losses = [[game.step() for _ in range(3)] for game in games]
    _demand(
        losses[0] == losses[1],
        f"{remedy.name} draws random numbers that the seed does not decide",
        "draw from turn.draws alone",
    )
    finite = bool(torch.isfinite(torch.tensor(losses[0])).all())
    _demand(finite, f"{remedy.name} makes the losses NaN or infinite", "check it on 512 samples of ring8")


def _results(metric: Metric, view: str, real: Tensor, fake: Tensor) -> dict[str, dict[Any, Any]]:
    found: dict[str, dict[Any, Any]] = {}
    needs = metric.needs()
    _demand(
        isinstance(needs, Mapping),
        f"{metric.key}.needs() gave a {type(needs).__name__}",
        "return {role: frozenset of specs}",
    )
    for role, specs in needs.items():
        rows = real if role == "real" else fake
        for spec in specs:
            state = spec.start()
            state.update(Batch(rows, torch.arange(len(rows)), features={view: rows}))
            found.setdefault(role, {})[spec] = state.result()
    return found


def _outcome(metric: Metric, outcome: Any) -> None:
    _demand(
        isinstance(outcome, MetricResult),
        f"{metric.key}.measure() gave a {type(outcome).__name__}",
        "return a gandiag.interfaces.Outcome",
    )
    for key, entry in outcome.measurements.items():
        _demand(
            isinstance(entry, Measurement), f"{key} is a {type(entry).__name__}", "make a gandiag.record.Measurement"
        )
        numbers = [number for number in (entry.low, entry.value, entry.high) if number is not None]
        _demand(
            all(torch.isfinite(torch.tensor(numbers)).tolist()),
            f"{key} is {numbers}",
            "give Measurement.missing(reason) in place of NaN",
        )
        _demand(numbers == sorted(numbers), f"{key} has low, value, high = {numbers}", "give low <= value <= high")
        _demand(
            entry.status == "ok" or bool(entry.reason),
            f"{key} is {entry.status} without a reason",
            "say why in one sentence",
        )
        _demand(
            entry.status != "ok" or entry.value is not None,
            f"{key} is ok and has no value",
            "give Measurement.missing(reason)",
        )
        _demand(
            entry.better in ("higher", "lower", "neither"),
            f"{key} is better {entry.better!r}",
            'give "higher", "lower" or "neither"',
        )


def _records() -> tuple[Record, ...]:
    good, bad = (
        Score(0.02, 0.0, 0.05, n_fake=N_SAMPLES, n_real=2 * N_SAMPLES),
        Score(0.6, 0.5, 0.7, n_fake=N_SAMPLES, n_real=2 * N_SAMPLES),
    )
    hostile = {UNSAFE_TEXT: Measurement(0.5, 0.4, 0.6, unit=UNSAFE_TEXT), "x": Measurement.missing(UNSAFE_TEXT)}
    return (
        Record("healthy", (), good, {"path": "good.pt"}, {}),
        Record(
            "collapsed",
            ("partial", UNSAFE_TEXT),
            bad,
            {"path": UNSAFE_TEXT},
            hostile,
            findings=(Finding(UNSAFE_TEXT, "error", UNSAFE_TEXT, {UNSAFE_TEXT: UNSAFE_TEXT}),),
        ),
        Record("inconclusive", (), Score(None, None, None), {}, {}),
    )


def _text(shown: Any) -> str:
    _demand(
        isinstance(shown, str) and bool(shown.strip()),
        f"it gave {type(shown).__name__} {str(shown)[:20]!r}",
        "return the whole document as text",
    )
    _demand(
        "\x1b" not in shown,
        "a control character of a checkpoint reaches the output",
        "pass every string through gandiag.report.formatting.clean",
    )
    return str(shown)


def _demand(holds: bool, what: str, hint: str) -> None:
    if not holds:
        raise PluginError(f"the plug-in does not keep its contract: {what}", hint)
