"""Words the structured assumptions of a loaded generator: label, value, source, and the options that override them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gandiag.config import assumption_options
from gandiag.interfaces import IMPOSSIBLE_MISMATCH, Assumption, BatchNormFit

# Labels of settings whose name is not label enough.
_LABELS = {
    "latent_dim": "latent size",
    "prior": "latent prior",
    "condition": "class encoding",
    "class_place": "position of the class",
    "strides": "stride and padding",
    "pixel_shuffle_order": "pixel-shuffle order",
    "activation": "hidden activation",
    "bn": "BatchNorm mode",
    "bn_eps": "BatchNorm eps",
    "hidden_norm": "norm, or layer without weights",
    "structure": "structure of the network",
    "before_last_layer": "before the last layer",
    "dropout": "dropout in training (none at inference)",
    "layer_settings": "activations and BatchNorm eps",
    "forward": "forward()",
    "batchnorm_statistics": "BatchNorm statistics",
    "batchnorm_gain": "BatchNorm gain",
    "psi": "truncation psi",
    "noise": "noise inputs",
    "w_avg": "mean style (w_avg)",
    "conv_clamp": "clamp of convolution outputs",
    "alpha": "fade-in weight (alpha)",
    "negative_slope": "negative slope of hidden activations",
    "columns": "columns of the table",
    "columns_left_out": "columns left out",
    "gumbel_noise": "Gumbel noise of categories",
    "batch": "batch size of the graph",
    "graph_noise": "noise inside the graph",
    "revision": "revision on the Hub",
    "lr_multiplier": "learning-rate multiplier of the mapping",
    "discriminator.strides": "D: stride and padding",
    "discriminator.activation": "D: hidden activation",
    "discriminator.bn_eps": "D: BatchNorm eps",
    "discriminator.loss": "D: loss",
    "discriminator.config": "D: networks and loss",
}
_SOURCES = {
    "batch-norm": "from BatchNorm statistics",
    "shapes": "from the weight shapes",
    "metadata": "from the file's metadata",
    "default": "default",
    "flag": "as given",
    "spec": "from --spec",
    "gandiag": "gandiag's choice",
    "file": "from the file",
    "family": "by architecture",
    "weights": "estimated from the weights",
    "module": "from the module",
    "attribute": "from the module's attribute",
    "hub": "from the Hub",
    "real": "from the size of the real data",
    "undecided": "undecided",
}


def assumption_label(entry: Assumption) -> str:
    """ "hidden activation", or "stride and padding of main.4, main.7"."""
    label = _LABELS.get(entry.setting, entry.setting.replace("_", " "))
    return f"{label} of {', '.join(entry.layers)}" if entry.layers else label


def assumption_value(entry: Assumption) -> str:
    """The value, its note and the BatchNorm evidence: "leaky:0.2 (mismatch 0.013; next best relu, 41 times worse)"."""
    details = "; ".join(part for part in (entry.note, _describe_fit(entry)) if part)
    value = format_assumed(entry.value)
    return f"{value} ({details})" if value and details else value or details


def format_assumed(value: Any) -> str:
    """Plain data as text: (-1.0, 1.0) -> [-1, 1], 1e-05 -> 1e-05, None -> none."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (tuple, list)):
        numbers = all(isinstance(part, (int, float)) for part in value)
        joined = ", ".join(format_assumed(part) for part in value)
        return f"[{joined}]" if numbers else joined
    return str(value)


def assumption_source(entry: Assumption) -> str:
    """The machine-readable source with its origin: "batch-norm", "file (config.json)"."""
    return f"{entry.source} ({entry.origin})" if entry.origin else entry.source


def describe_source(entry: Assumption) -> str:
    """The source in words: "from BatchNorm statistics", "from the file: config.json"."""
    words = _SOURCES.get(entry.source, entry.source)
    return f"{words}: {entry.origin}" if entry.origin else words


def assumption_document(entry: Assumption) -> dict[str, Any]:
    """The record's entry: what, value and source as text, and the same as data."""
    options = assumption_options(entry.setting)
    label = assumption_label(entry)
    fit = entry.fit or BatchNormFit()
    return {
        "what": f"{label} ({', '.join(options)})" if options else label,
        "value": assumption_value(entry),
        "source": assumption_source(entry),
        "label": label,
        "setting": entry.setting,
        "data": list(entry.value) if isinstance(entry.value, tuple) else entry.value,
        "layers": list(entry.layers),
        "mismatch": fit.mismatch,
        "runner_up": fit.runner_up,
        "ratio": fit.ratio,
        "note": entry.note,
    }


@dataclass(frozen=True, slots=True)
class StatedAssumption:
    """An assumption in words, as `gandiag.load` gives it and the record holds it; `data`: the value as plain data."""

    what: str
    value: str
    source: str
    setting: str
    data: Any
    layers: tuple[str, ...] = ()
    note: str = ""


def state_assumption(entry: Assumption) -> StatedAssumption:
    """The assumption in words."""
    words = assumption_document(entry)
    return StatedAssumption(
        words["what"], words["value"], words["source"], entry.setting, entry.value, entry.layers, entry.note
    )


def merge_layers(entries: Sequence[Assumption]) -> list[Assumption]:
    """Adjacent entries that differ only in their layers, merged into one; of their fits, the worst is kept."""
    merged: list[Assumption] = []
    for entry in entries:
        last = merged[-1] if merged else None
        if last is not None and entry.layers and last.layers and _same_but_layers(last, entry):
            fit = _worse_fit(last.fit, entry.fit)
            merged[-1] = replace(last, layers=(*last.layers, *entry.layers), fit=fit)
        else:
            merged.append(entry)
    return merged


def _same_but_layers(first: Assumption, second: Assumption) -> bool:
    """Whether two entries differ in their layers and in how well they fit only."""
    outcomes = {entry.fit.outcome if entry.fit else None for entry in (first, second)}
    return len(outcomes) == 1 and replace(first, layers=(), fit=None) == replace(second, layers=(), fit=None)


def _worse_fit(first: BatchNormFit | None, second: BatchNormFit | None) -> BatchNormFit | None:
    """The fit with the smaller margin over its runner-up."""
    if first is None or second is None:
        return first
    return min((first, second), key=lambda fit: fit.ratio if fit.ratio is not None else float("inf"))


def _describe_fit(entry: Assumption) -> str:
    fit = entry.fit
    if fit is None:
        return ""
    if fit.outcome == "not_ranked":
        return "default; to rank the alternatives by BatchNorm statistics takes longer than the search may"
    best = f"BatchNorm mismatch {fit.mismatch:.3f}" if fit.mismatch is not None else ""
    if fit.outcome == "none_fits":
        return f"no value fits the BatchNorm statistics: {best} at best"
    if fit.outcome == "same_outputs":
        return f"{best}; the alternatives give the same samples"
    if fit.runner_up is None:
        return best
    if fit.runner_up_mismatch is not None and fit.runner_up_mismatch >= IMPOSSIBLE_MISMATCH:
        return f"{best}; {fit.runner_up} is impossible"
    margin = f"{fit.ratio:.1f} times worse" if fit.ratio is not None else f"{fit.runner_up_mismatch:.3f}"
    lead = "undecided: " if entry.undecided else "default: " if fit.outcome == "default_kept" else ""
    return f"{lead}{best}; next best {fit.runner_up}, {margin}"
