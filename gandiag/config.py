"""Every knob of an audit, once: name, type, default, bounds and help. Options, environment and TOML derive from here.

Precedence: flag > GANDIAG_<NAME> > gandiag.toml or [tool.gandiag] > budget preset > default.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gandiag.errors import ConfigError, close_match_hint

DEFAULT_LATENT_SCALES = (0.02, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 4.0)

# Samples a side. On a GPU "standard" is 10,000.
BUDGET_SAMPLES: dict[str, dict[str, int]] = {
    "quick": {"cpu": 1_000, "gpu": 1_000},
    "standard": {"cpu": 2_000, "gpu": 10_000},
    "thorough": {"cpu": 50_000, "gpu": 50_000},
}


def setting_field(
    default: Any,
    help: str,
    *,
    group: str = "audit",
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    multiple: bool = False,
) -> Any:
    """A dataclass field that carries what command line, environment and TOML need to know about it."""
    meta = {"help": help, "group": group, "choices": choices, "low": low, "high": high, "many": multiple}
    return field(default=default, metadata=meta)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditConfig:
    """The settings of one audit; frozen and checked on construction. Unset (None) means: inferred, and said."""

    # what to measure
    real: str | None = setting_field(
        None, "real data: image folder (class sub-folders are matched class by class), zip, .npy or .npz"
    )
    log: str | None = setting_field(
        None, "training log of this generator: its losses are read and reported beside the verdict"
    )
    budget: str = setting_field(
        "standard",
        "samples a side: quick 1,000, standard 2,000 (10,000 on a GPU), thorough 50,000",
        choices=tuple(BUDGET_SAMPLES),
    )
    n: int | None = setting_field(None, "generated samples, in place of the budget's", low=2)
    scales: tuple[float, ...] = setting_field(
        DEFAULT_LATENT_SCALES, "latent scales of the sweep, comma-separated", multiple=True, low=0.0
    )
    seed: int = setting_field(0, "seed of every draw", low=0)
    features: str | None = setting_field(
        None,
        "imagenet (images), identity (vectors), series, pixels, imagenet@224, or one of torch-fidelity's extractors",
    )
    metrics: tuple[str, ...] = setting_field(
        (), "extra metrics by name, comma-separated (fid, is: Inception weights are needed)", multiple=True
    )
    limit: float = setting_field(0.15, "collapse score at which the verdict is collapsed", low=0.0, high=1.0)
    exhibits: bool = setting_field(True, "keep sample sheets and curves in the record")
    # how to run
    device: str = setting_field("auto", "where to sample", group="run", choices=("auto", "cpu", "cuda", "mps"))
    batch_size: int | None = setting_field(
        None, "generator batch (default: automatic, halved when memory runs out)", group="run", low=1
    )
    download: bool = setting_field(False, "allow the download of extractor weights", group="run")
    inception_weights: str | None = setting_field(None, "torch-fidelity's Inception weights on this disk", group="run")
    # how to read the file
    key: str | None = setting_field(None, "path of the generator inside the file, as a.b.c", group="load")
    weights: str = setting_field(
        "ema", "which weights, where the file holds both", group="load", choices=("ema", "raw")
    )
    model: str | None = setting_field(None, "pkg.mod:factory that builds the network for these weights", group="load")
    init: tuple[str, ...] = setting_field((), "k=v argument of the factory (repeatable)", group="load", multiple=True)
    trust: bool = setting_field(False, "run the code in this file (TorchScript, pickled modules)", group="load")
    strict: bool = setting_field(False, "turn every assumption into an error", group="load")
    spec: str | None = setting_field(
        None, "file that keeps the whole reading: written if it does not exist, else replayed", group="load"
    )
    npz_key: str | None = setting_field(None, "array inside an .npz file of samples", group="load")
    # what the file cannot say
    latent_dim: int | None = setting_field(None, "size of the latent vector, labels not counted", group="latent", low=1)
    prior: str | None = setting_field(
        None,
        "latent prior (default: normal)",
        group="latent",
        choices=("normal", "uniform", "unit", "truncated", "sphere"),
    )
    scale: float = setting_field(1.0, "latent scale sampled at", group="latent", low=0.0)
    psi: float = setting_field(1.0, "truncation: styles drawn towards their mean, 1 is none", group="latent", low=0.0)
    noise: str = setting_field(
        "const",
        "noise inputs beside the latent: one fixed draw, one a sample, or none",
        group="latent",
        choices=("const", "random", "none"),
    )
    classes: int | None = setting_field(None, "number of classes of a conditional generator", group="latent", low=1)
    condition: str | None = setting_field(
        None, "how the class is passed", group="latent", choices=("index", "onehot", "concat")
    )
    class_place: str | None = setting_field(
        None,
        "where the class, one-hot or as a vector, goes: before, after, between, times or plus the latents",
        group="latent",
        choices=("before", "after", "between", "times", "plus"),
    )
    class_: int | None = setting_field(None, "sample this class only", group="latent", low=0)
    image_size: int | None = setting_field(None, "side of the image in pixels", group="output", low=1)
    channels: int | None = setting_field(None, "channels of the image", group="output", low=1)
    strides: tuple[str, ...] | None = setting_field(
        None,
        "stride/padding of each transposed convolution that starts from more than one pixel, in order: 2/1,2/1",
        group="output",
        multiple=True,
    )
    upsampling: str | None = setting_field(
        None,
        "how a picture is doubled, where the file does not say",
        group="output",
        choices=("nearest", "bilinear", "pixel-shuffle", "depth-to-space"),
    )
    activation: str | None = setting_field(None, "hidden activation: relu, leaky:0.2, tanh …", group="output")
    output_range: tuple[float, ...] | None = setting_field(
        None, "range of the output, as -1,1 or 0,1", group="output", multiple=True
    )
    bn: str = setting_field(
        "eval",
        "batch norm: stored statistics, the batch's, or re-estimated",
        group="output",
        choices=("eval", "batch", "standing"),
    )
    bn_eps: float | None = setting_field(
        None, "eps of batch norm (1e-5; some popular code uses 0.8)", group="output", low=0.0
    )

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            validate_setting(entry, getattr(self, entry.name))
        if self.output_range is not None and (
            len(self.output_range) != 2 or not self.output_range[0] < self.output_range[1]
        ):
            raise ConfigError(
                f"--output-range is {self.output_range}", "give two numbers, low then high: --output-range -1,1"
            )

    def n_samples(self, device: str) -> int:
        """Generated samples: `n`, else the budget's for this device."""
        return self.n or BUDGET_SAMPLES[self.budget]["cpu" if device == "cpu" else "gpu"]


def option_name(name: str) -> str:
    """The command-line spelling of a knob: `latent_dim` -> --latent-dim, `class_` -> --class."""
    return "--" + name.strip("_").replace("_", "-")


def validate_setting(entry: dataclasses.Field[Any], value: Any) -> None:
    """Choices and bounds of one knob. ConfigError names the flag, the value and what is allowed."""
    if value is None:
        return
    rules, name = entry.metadata, option_name(entry.name)
    if rules["choices"] and value not in rules["choices"]:
        raise ConfigError(f"{name} is {value!r}", close_match_hint(str(value), rules["choices"]))
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, str):
            continue
        # Negated comparisons, so that NaN fails too.
        if rules["low"] is not None and not number >= rules["low"]:
            raise ConfigError(f"{name} is {number}", f"give a number of at least {rules['low']:g}")
        if rules["high"] is not None and not number <= rules["high"]:
            raise ConfigError(f"{name} is {number}", f"give a number of at most {rules['high']:g}")


@dataclass(frozen=True, slots=True)
class ResolvedConfig:
    """A configuration and where each value came from: "flag", "environment", the TOML file, or "default"."""

    config: AuditConfig
    sources: Mapping[str, str]


def resolve_config(
    options: Mapping[str, Any], *, environ: Mapping[str, str] | None = None, folder: Path | None = None
) -> ResolvedConfig:
    """Put flags over environment over TOML over defaults. Unknown names are errors with the nearest match."""
    environ = os.environ if environ is None else environ
    known = {entry.name: entry for entry in dataclasses.fields(AuditConfig)}
    values: dict[str, Any] = {}
    sources = {name: "default" for name in known}
    for name, value, source in [*_from_toml(folder or Path.cwd(), known), *_from_environ(environ, known)]:
        values[name], sources[name] = value, source
    for name, value in options.items():
        if name not in known:
            raise ConfigError(f"there is no setting called {name!r}", close_match_hint(name, list(known)))
        if value is not None:
            values[name], sources[name] = value, "flag"
    return ResolvedConfig(AuditConfig(**values), sources)


def _from_environ(environ: Mapping[str, str], known: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    found = []
    for name, entry in known.items():
        variable = "GANDIAG_" + name.strip("_").upper()
        if variable in environ:
            found.append((name, _parse(entry, environ[variable], variable), f"environment ({variable})"))
    return found


def _from_toml(folder: Path, known: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """The [audit] table of gandiag.toml, or [tool.gandiag.audit] of pyproject.toml; the first file that has one wins."""
    for name, path in (("gandiag.toml", ()), ("pyproject.toml", ("tool", "gandiag"))):
        file = folder / name
        if not file.is_file():
            continue
        try:
            table: Any = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as broken:
            raise ConfigError(f"{name} is not valid TOML: {broken}", "correct the file") from None
        for part in path:
            table = table.get(part, {})
        if "audit" in table:
            return [_toml_row(key, value, known, name) for key, value in table["audit"].items()]
    return []


def _toml_row(key: str, value: Any, known: Mapping[str, Any], file: str) -> tuple[str, Any, str]:
    name = {"class": "class_"}.get(key, key.replace("-", "_"))
    if name not in known:
        raise ConfigError(f"{file} sets {key!r}, which is no setting", close_match_hint(key, list(known)))
    return name, tuple(value) if isinstance(value, list) else _parse(known[name], value, f"{file}: {key}"), file


def _parse(entry: dataclasses.Field[Any], text: Any, where: str) -> Any:
    """A string from the environment to the knob's type; other types pass unchanged."""
    if not isinstance(text, str):
        return text
    annotation = str(entry.type)
    try:
        if annotation.startswith("bool"):
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
        if annotation.startswith("int"):
            return int(text)
        if annotation.startswith("float"):
            return float(text)
        if annotation.startswith("tuple[float"):
            return parse_floats(text)
        if annotation.startswith("tuple[str"):
            return tuple(part.strip() for part in text.split(",") if part.strip())
    except (ValueError, KeyError):
        raise ConfigError(f"{where} is {text!r}", f"give a value of type {annotation.split(' ')[0]}") from None
    return text


def parse_floats(text: str) -> tuple[float, ...]:
    """ "0.5, 1,2" -> (0.5, 1.0, 2.0). ValueError for anything else."""
    return tuple(float(part) for part in text.split(",") if part.strip())
