"""Defines every audit setting once: name, type, default, bounds and help.

Command-line options, environment variables and TOML keys derive from it.
Precedence: flag > GANDIAG_<NAME> > gandiag.toml or [tool.gandiag] > the user's file > budget preset > default.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gandiag.errors import ConfigError, close_match_hint
from gandiag.untrusted.settings_files import (
    parse_setting,
    project_files,
    read_project_settings,
    read_user_settings,
    require_type,
)

DEFAULT_LIMIT = 0.15  # collapse score at which the verdict is "collapsed"
# BatchNorm mismatch from which a rebuilt network may be a loading error: mean over layers of
# |difference of means| / sigma + |log variance ratio| between BatchNorm inputs and stored statistics. Correct rebuilds
# stay below 0.15; wrong ones measured 0.2 to 2. The policy's default; checkpoints/batchnorm/thresholds.py uses it too.
MAX_BATCHNORM_MISMATCH = 0.5
DEFAULT_LATENT_SCALES = (0.02, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 4.0)

# Generated samples, by budget and device.
BUDGET_SAMPLES: dict[str, dict[str, int]] = {
    "quick": {"cpu": 1_000, "gpu": 1_000},
    "standard": {"cpu": 2_000, "gpu": 10_000},
    "thorough": {"cpu": 50_000, "gpu": 50_000},
}

# Rows among which exact neighbors are searched, by device: their cost grows with the square.
NEIGHBOR_ROWS = {"cpu": 20_000, "gpu": 200_000}


def setting_field(
    default: Any,
    help: str,
    *,
    group: str = "audit",
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    multiple: bool = False,
    unset: str = "inferred",
) -> Any:
    """A dataclass field with the metadata that command line, environment and TOML need. `unset`: what None means."""
    meta = {
        "help": help,
        "group": group,
        "choices": choices,
        "low": low,
        "high": high,
        "many": multiple,
        "unset": unset,
    }
    return field(default=default, metadata=meta)


HIDDEN_NORMS = (
    *("none", "instance", "pixel", "layer", "pixel-after", "layer-after", "instance-after"),
    *("avg-pool", "max-pool", "upsample"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditConfig:
    """The settings of one audit; frozen and validated.

    None means that the value is inferred, and reported as an assumption.
    """

    # what to measure
    real: str | None = setting_field(
        None,
        "real data: folder (class subfolders are compared class by class), .zip or .tar of images or sounds, .npy, "
        ".npz, CSV or Parquet",
        unset="no real data",
    )
    holdout: str | None = setting_field(
        None,
        "real rows of a table that were kept out of training: are generated rows nearer to those of --real?",
        unset="no held-out rows",
    )
    group_by: str | None = setting_field(
        None,
        "audit variety within groups: folder, stem (017_3.png: group 017), a CSV or JSON lines of files and groups "
        "(FILE or FILE:COLUMN), or the name of an array in the .npz",
        unset="no groups",
    )
    against: str | None = setting_field(
        None,
        "samples or checkpoint whose variety within the same groups is the reference: teacher, base model",
        unset="no reference",
    )
    per_class: int | None = setting_field(
        None,
        "samples of each class of a conditional generator; each class is a group",
        low=2,
        unset="classes are no groups",
    )
    log: str | None = setting_field(
        None, "training log of this generator; its losses are diagnosed next to the verdict", unset="no log"
    )
    budget: str = setting_field(
        "standard",
        "generated samples: quick 1,000, standard 2,000 (10,000 on a GPU), thorough 50,000",
        choices=tuple(BUDGET_SAMPLES),
    )
    n: int | None = setting_field(
        None, "number of generated samples; overrides --budget", low=2, high=10_000_000, unset="set by the budget"
    )
    neighbours_max: int | None = setting_field(
        None,
        "generated samples that are compared pair by pair (score, neighbours, duplicates, KID …), a subsample by seed "
        "where there are more",
        low=100,
        high=10_000_000,
        unset="20,000 on CPU, 200,000 on a GPU",
    )
    scales: tuple[float, ...] = setting_field(
        DEFAULT_LATENT_SCALES, "latent scales of the sweep, comma-separated", multiple=True, low=0.0
    )
    seed: int = setting_field(0, "seed of all random numbers", low=0, high=2**63 - 1)
    features: str | None = setting_field(
        None,
        "imagenet (images), identity (vectors), table (columns), series, logmel@RATE (sounds), pixels, imagenet@224, "
        "or a torch-fidelity extractor",
        unset="by kind of sample",
    )
    metrics: tuple[str, ...] = setting_field(
        (), "extra metrics by name, comma-separated (fid and is need Inception weights)", multiple=True
    )
    limit: float = setting_field(DEFAULT_LIMIT, "collapse score at which the verdict is collapsed", low=0.0, high=1.0)
    exhibits: bool = setting_field(True, "include sample sheets and curves in the record")
    # how to run
    device: str = setting_field("auto", "device to sample on", group="run", choices=("auto", "cpu", "cuda", "mps"))
    batch_size: int | None = setting_field(
        None,
        "generator batch size (default: automatic, halved when memory runs out); on a CPU whole calls of 16 or 64",
        group="run",
        low=1,
        high=1_000_000,
        unset="automatic",
    )
    download: bool = setting_field(False, "allow downloading extractor weights", group="run")
    inception_weights: str | None = setting_field(
        None, "local file with torch-fidelity's Inception weights", group="run", unset="none"
    )
    # how to read the file
    key: str | None = setting_field(
        None, "path of the generator inside the file, such as a.b.c", group="load", unset="found in the file"
    )
    weights: str = setting_field(
        "ema", "which weights to use where the file has both", group="load", choices=("ema", "raw")
    )
    model: str | None = setting_field(
        None,
        "pkg.mod:factory that builds the network for these weights; without a file, pkg.mod:fn with fn(n, seed) that "
        "returns n samples",
        group="load",
        unset="rebuilt from the weights",
    )
    init: tuple[str, ...] = setting_field((), "k=v argument for the factory (repeatable)", group="load", multiple=True)
    trust: bool = setting_field(False, "execute code in this file (TorchScript, pickled modules)", group="load")
    strict: bool = setting_field(False, "turn every assumption into an error", group="load")
    spec: str | None = setting_field(
        None,
        "JSON file with all loading settings: written if it does not exist, else replayed",
        group="load",
        unset="none",
    )
    npz_key: str | None = setting_field(
        None, "name of the array in an .npz file of samples", group="load", unset="the only array"
    )
    skip_broken: bool = setting_field(
        False, "leave out images that cannot be read, and name them, instead of stopping", group="load"
    )
    columns: tuple[str, ...] | None = setting_field(
        None,
        "types of table columns, comma-separated: age=number,cut=category,sold=date,note=skip",
        group="load",
        multiple=True,
    )
    # what the file cannot say
    latent_dim: int | None = setting_field(
        None, "size of the latent vector without labels", group="latent", low=1, high=1 << 20
    )
    prior: str | None = setting_field(
        None,
        "latent prior (default: normal)",
        group="latent",
        choices=("normal", "uniform", "unit", "truncated", "sphere"),
        unset="inferred, else normal",
    )
    scale: float = setting_field(1.0, "latent scale to sample at", group="latent", low=0.0)
    psi: float = setting_field(1.0, "truncation psi: pulls styles toward their mean; 1 is off", group="latent", low=0.0)
    noise: str = setting_field(
        "const",
        "noise inputs besides the latent: one fixed draw, one per sample, or none",
        group="latent",
        choices=("const", "random", "none"),
    )
    classes: int | None = setting_field(
        None, "number of classes of a conditional generator", group="latent", low=1, high=1 << 20
    )
    condition: str | None = setting_field(
        None, "how the class is passed to the network", group="latent", choices=("index", "onehot", "concat")
    )
    class_place: str | None = setting_field(
        None,
        "how the class vector is combined with the latents: before, after, between, times or plus them",
        group="latent",
        choices=("before", "after", "between", "times", "plus"),
    )
    class_: int | None = setting_field(
        None, "sample this class only", group="latent", low=0, high=1 << 20, unset="all classes"
    )
    image_size: int | None = setting_field(
        None,
        "image height and width in pixels; images of other sizes are resized to it",
        group="output",
        low=1,
        high=1 << 15,
    )
    channels: int | None = setting_field(None, "image channels", group="output", low=1, high=1 << 12)
    strides: tuple[str, ...] | None = setting_field(
        None,
        "stride/padding of each transposed convolution whose input has more than one pixel, in order: 2/1,2/1",
        group="output",
        multiple=True,
    )
    upsampling: str | None = setting_field(
        None,
        "how feature maps are upsampled where the file does not say",
        group="output",
        choices=("nearest", "bilinear", "pixel-shuffle", "depth-to-space"),
    )
    activation: str | None = setting_field(None, "hidden activation: relu, leaky:0.2, tanh …", group="output")
    hidden_norm: str | None = setting_field(
        None,
        "layer without weights between the others: InstanceNorm, PixelNorm or LayerNorm (before the activation, or "
        "after it), pooling by 2, upsampling by 2; group:N for the groups of norms with weights",
        group="output",
        choices=(*HIDDEN_NORMS, *(f"group:{n}" for n in (2, 4, 8, 16, 32))),
    )
    output_range: tuple[float, ...] | None = setting_field(
        None, "range of output values, such as -1,1 or 0,1", group="output", multiple=True
    )
    bn: str = setting_field(
        "eval",
        "BatchNorm statistics: stored, the batch's own, or re-estimated",
        group="output",
        choices=("eval", "batch", "standing"),
    )
    bn_eps: float | None = setting_field(
        None,
        "BatchNorm eps (default 1e-5; some popular code uses 0.8)",
        group="output",
        low=0.0,
        unset="inferred, else 1e-5",
    )

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            validate_setting(entry, getattr(self, entry.name))
        if self.output_range is not None and (
            len(self.output_range) != 2 or not self.output_range[0] < self.output_range[1]
        ):
            raise ConfigError(
                f"--output-range is {self.output_range}", "pass two numbers, low then high: --output-range -1,1"
            )

    def n_samples(self, device: str) -> int:
        """Number of generated samples: `n`, else that of the budget on this device."""
        return self.n or BUDGET_SAMPLES[self.budget]["cpu" if device == "cpu" else "gpu"]

    def n_neighbors(self, device: str) -> int:
        """The most generated samples that are compared pair by pair on this device."""
        return self.neighbours_max or NEIGHBOR_ROWS["cpu" if device == "cpu" else "gpu"]


def option_name(name: str) -> str:
    """The command-line option of a setting: `latent_dim` -> --latent-dim, `class_` -> --class."""
    return "--" + name.strip("_").replace("_", "-")


def setting_group(*groups: str) -> tuple[str, ...]:
    """Names of the settings of these groups: "audit", "run", "load", "latent", "output" and others."""
    return tuple(entry.name for entry in dataclasses.fields(AuditConfig) if entry.metadata["group"] in groups)


def validate_setting(entry: dataclasses.Field[Any], value: Any) -> None:
    """Check type, choices and bounds of a setting. ConfigError names the option, the value and what is allowed."""
    if value is None:
        return
    rules, name = entry.metadata, option_name(entry.name)
    require_type(entry, value, name)
    if rules["choices"] and value not in rules["choices"]:
        raise ConfigError(f"{name} is {value!r}", close_match_hint(str(value), rules["choices"]))
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, str):
            continue
        if isinstance(number, float) and math.isinf(number):
            raise ConfigError(f"{name} is {number}", "pass a finite number")
        # Negated comparisons, so that NaN fails too.
        if rules["low"] is not None and not number >= rules["low"]:
            raise ConfigError(f"{name} is {number}", f"pass a number of at least {rules['low']:g}")
        if rules["high"] is not None and not number <= rules["high"]:
            raise ConfigError(f"{name} is {number}", f"pass a number of at most {rules['high']:g}")


@dataclass(frozen=True, slots=True)
class ResolvedConfig:
    """A configuration and the source of each value: "flag", "environment (NAME)", the TOML file, or "default"."""

    config: AuditConfig
    sources: Mapping[str, str]


def resolve_config(
    options: Mapping[str, Any], *, environ: Mapping[str, str] | None = None, folder: Path | None = None
) -> ResolvedConfig:
    """Combine flags, environment, TOML and defaults, in this order of precedence.

    `folder`: where to look for a project's TOML files, by default the working directory; these may not set what runs
    code, reaches the network or reads other paths. ConfigError for unknown names, with close matches.
    """
    environ = os.environ if environ is None else environ
    known = {entry.name: entry for entry in dataclasses.fields(AuditConfig)}
    values: dict[str, Any] = {}
    sources = {name: "default" for name in known}
    rows = [
        *read_user_settings(environ, known),
        *read_project_settings(folder or _working_folder(), known),
        *_read_environ(environ, known),
    ]
    for name, value, source in rows:
        values[name], sources[name] = value, source
    for name, value in options.items():
        if name not in known:
            raise ConfigError(f"there is no setting {name!r}", close_match_hint(name, list(known)))
        if value is not None:
            values[name], sources[name] = value, "flag"
    if values.get("trust") and sources["against"] in project_files():
        raise ConfigError(
            f"--trust would run the code in {values['against']} too, which {sources['against']} sets as against",
            "remove that line, or pass --against yourself",
        )
    return ResolvedConfig(AuditConfig(**values), sources)


def _working_folder() -> Path:
    """The working folder. ConfigError where it has been removed."""
    try:
        return Path.cwd()
    except OSError:
        raise ConfigError("the working folder does not exist any more", "change to one that does: cd ~") from None


def _read_environ(environ: Mapping[str, str], known: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """(setting, value, source) of every GANDIAG_ variable that names a setting."""
    rows = []
    for name, entry in known.items():
        variable = "GANDIAG_" + name.strip("_").upper()
        if variable not in environ:
            continue
        value = parse_setting(entry, environ[variable], variable)
        if name == "trust" and value:
            raise ConfigError(f"{variable} would trust every file", "unset it, and pass --trust for the one you trust")
        rows.append((name, value, f"environment ({variable})"))
    return rows


# Assumptions that another setting, or several, answer.
_ANSWERED_BY = {
    "image_shape": ("image_size", "channels"),
    "strides": ("image_size", "strides"),
    "pixel_shuffle_order": ("upsampling",),
    "output_activation": ("output_range",),
    "upsampling_blocks": ("image_size",),
    "sampler": ("init",),
    "forward": ("model",),
    "structure": ("model",),
    "before_last_layer": ("image_size", "hidden_norm"),
}


def assumption_options(setting: str) -> tuple[str, ...]:
    """The command-line options that override an assumption about this setting; none where no option does."""
    known = {entry.name for entry in dataclasses.fields(AuditConfig)}
    return tuple(option_name(name) for name in _ANSWERED_BY.get(setting, (setting,)) if name in known)
