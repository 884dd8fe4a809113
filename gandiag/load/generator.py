"""What a checkpoint became: a network that maps latents (and labels) to samples, and everything that had to be assumed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gandiag.config import AuditConfig, flag
from gandiag.contracts import Assumption, Condition, Latent, Output
from gandiag.errors import LoadError
from gandiag.load.adapter import adapt, call, frozen_copy, picture
from gandiag.load.companions import companion
from gandiag.load.containers import WEIGHT_SUFFIXES
from gandiag.load.factory import build, fill
from gandiag.load.folders import holds_checkpoint, is_pipeline, open_folder, refuse_part
from gandiag.load.hub import fetch, is_reference
from gandiag.load.names import printable, role
from gandiag.load.programs import Program
from gandiag.load.read import Content, read
from gandiag.load.rebuild.chain import strides_of
from gandiag.load.rebuild.families import rebuild
from gandiag.load.rebuild.inputs import PLACE
from gandiag.load.rebuild.knobs import set_knobs
from gandiag.load.recognise import refuse_others
from gandiag.load.spec import Spec, read_spec, settled, write_spec
from gandiag.load.stated import stated
from gandiag.load.weights import as_float, find_weights

_OF_WEIGHTS = ("model", "key", "strides", "class_place")  # settings that a program leaves no room for
_KNOWN_SOURCES = ("flag", "spec", "gandiag", "hub", "file", "metadata", "shapes", "module", "attribute")


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A generator on the CPU, in eval mode, without gradients.

    `subject`: path as typed, sha256, loader, family, parameters, weights. `assumptions`: what the file does not say, who
    said it, and the flag that overrides it. `notes`: what a reader should know of the file. `labels_first`: with
    condition "concat", one-hot labels stand before the latents. `trained_scale`: the file's own word, in units of the prior.
    """

    module: nn.Module
    latent: Latent
    output: Output
    classes: int | None = None
    condition: Condition | None = None
    subject: Mapping[str, Any] = field(default_factory=dict)
    assumptions: tuple[Assumption, ...] = ()
    notes: tuple[str, ...] = ()
    labels_first: bool = False
    trained_scale: float | None = None

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Samples (B, *output.shape) float32 for latents z (B, *latent.shape) and, of a conditional generator, labels (B,) int64.

        Lists, tuples and dicts give their largest tensor; flat images are reshaped. LoadError for labels that are missing,
        and for outputs of another size.
        """
        if (labels is None) != (self.condition is None):
            need = f"needs labels: it has {self.classes} classes" if labels is None else "takes no labels"
            raise LoadError(f"the generator {need}", "pass labels (B,) int64 to conditional generators only")
        made = picture(call(self.module, z, labels, (self.condition, self.classes), labels_first=self.labels_first))
        try:
            return made.reshape(len(z), *self.output.shape).float()  # (B, *shape)
        except RuntimeError:
            raise LoadError(f"the generator returned {tuple(made.shape)} for {len(z)} latents, not {self.output.shape} each", "check --latent-dim") from None


def load_network(path: str | os.PathLike[str], config: AuditConfig | None = None, *, glance: bool = False) -> Network:
    """The generator in a file. Nothing in it runs unless `config.trust`; weights are rebuilt from their shapes, or filled
    into what `config.model` builds.

    Raises LoadError, with what was found and what to do, for everything that cannot be read, told apart or rebuilt; under
    `config.strict` also for every assumption that neither the file nor a flag backs. `glance`: to look and not to sample;
    the file is not hashed, and its weights are read where they stand, so that it must not change meanwhile.
    """
    config = config or AuditConfig()
    try:
        noted = read_spec(config.spec) if config.spec and Path(config.spec).exists() else Spec()
        network = _read(path, noted.fill(config), glance=glance)
        network = replace(network, assumptions=tuple(noted.credit(entry, config) for entry in network.assumptions))
        if config.strict:
            _refuse_assumptions(network, Path(path).name)
        if config.spec and not noted.settings and not glance:
            made = (network.latent, network.output, network.classes, network.condition)
            write_spec(config.spec, settled(config, network.assumptions, made, strides_of(network.module)), network.subject)
    except LoadError as problem:
        raise LoadError(printable(problem.what), printable(problem.hint)) from None
    if noted.sha256 and network.subject["sha256"] not in (None, noted.sha256):
        return replace(network, notes=(*network.notes, f"read as {config.spec} says, which was written for another file"))
    return network


def _read(path: str | os.PathLike[str], config: AuditConfig, *, glance: bool) -> Network:
    """The network of a file, of the one file in a folder that holds a generator, or of a repository of the Hub."""
    if is_reference(os.fspath(path)):
        return _fetched(os.fspath(path), config, glance=glance)
    if not holds_checkpoint(Path(path)):
        if config.model is None:
            refuse_part(Path(path).parent)
        return _one(os.fspath(path), config, glance=glance)
    folder, found, reasons = open_folder(Path(path), config.weights), [], []
    if is_pipeline(Path(path)):
        return _pipeline(os.fspath(path), folder.files[0], config, glance=glance)
    for file in folder.files:
        try:
            found.append(_one(os.fspath(file), config, glance=glance or len(folder.files) > 1))
        except LoadError as problem:
            reasons.append(problem)
    if not found:
        raise reasons[0]
    names = [Path(network.subject["path"]).name for network in found]
    if len(found) > 1:
        raise LoadError(f"{path} holds several networks that could be the generator: {', '.join(names[:5])}", f"pass one of them: {found[0].subject['path']}")
    unnamed = (f"{', '.join(file.name for file in folder.files)} are unnamed; {names[0]} looks like the generator",) if len(folder.files) > 1 else ()
    network = found[0] if len(folder.files) == 1 or glance else _one(found[0].subject["path"], config, glance=False)
    return replace(network, notes=(*network.notes, *folder.notes, *unnamed))


def _fetched(reference: str, config: AuditConfig, *, glance: bool) -> Network:
    came = fetch(reference, config.weights)
    network = _read(came.path, config, glance=glance)
    facts = {**network.subject, "path": reference}
    return replace(network, subject=facts, assumptions=(came.revision, *network.assumptions), notes=(*network.notes, *came.notes))


def _pipeline(path: str, weights: Path, config: AuditConfig, *, glance: bool) -> Network:
    from gandiag.load.diffusion import read_pipeline

    content = read_pipeline(Path(path), weights, hashed=not glance)
    subject = {"path": path, "sha256": content.sha256 or None, "loader": content.loader, "weights": f"unet/{weights.name}"}
    return _of_program(content.tree, content.notes, subject, config, look=glance)


def _one(path: str, config: AuditConfig, *, glance: bool) -> Network:
    content = read(path, trust=config.trust, hashed=not glance)
    told = stated(Path(path))
    network = _from_content(content, told.fill(config), path, borrow=glance)
    return replace(network, trained_scale=told.trained_scale, assumptions=tuple(told.credit(entry, config) for entry in network.assumptions))


def network_of(module: nn.Module, config: AuditConfig | None = None) -> Network:
    """A live module as a generator: a frozen copy is used, the caller's module is not touched."""
    config = config or AuditConfig()
    network = _adapted(frozen_copy(module), config, {"path": None, "sha256": None, "loader": "module", "weights": "the module's own"}, ())
    if config.strict:
        _refuse_assumptions(network, type(module).__name__)
    return network


def _from_content(content: Content, config: AuditConfig, path: str, *, borrow: bool) -> Network:
    name = Path(path).name
    subject = {"path": path, "sha256": content.sha256 or None, "loader": content.loader}
    if isinstance(content.tree, Program):
        return _of_program(content.tree, content.notes, subject, config, look=borrow)
    whole = _whole_module(content.tree, config, name)
    if whole is not None and config.model is None:
        module, used = whole
        for entry in module.parameters():  # TorchScript modules have no requires_grad_
            entry.requires_grad = False
        return _adapted(module.eval(), config, {**subject, "weights": used}, content.notes)
    try:
        found = find_weights(content.tree, key=config.key, prefer=config.weights, ordered=content.ordered, name=name)
    except LoadError as problem:
        others = [entry for entry in _siblings(path) if entry != name]
        raise LoadError(problem.what, f"{problem.hint}; beside it: {', '.join(others[:5])}") if others else problem from None
    weights = as_float(found, borrow=borrow)
    subject |= {"weights": printable(weights.why)}
    notes = tuple(map(printable, (*content.notes, *weights.notes)))
    if config.model is not None:
        module = build(config.model, config.init)
        fill(module, weights, name)
        return _adapted(frozen_copy(module), config, {**subject, "family": config.model}, notes)
    refuse_others(weights.tensors, name, _siblings(path))
    made = rebuild(replace(weights, beside={**companion(Path(path)), **_settings(content.tree)}), config, name, glance=borrow and not config.strict)
    facts = {**subject, "family": made.family, "parameters": weights.parameters}
    classes, first = made.inputs.classes, made.inputs.labels_first
    said = (*made.assumptions, *set_knobs(made.module, config, name))
    return Network(made.module, made.latent, made.output, classes, made.condition, facts, _shown(said), notes, first)


def _of_program(program: Program, notes: tuple[str, ...], subject: Mapping[str, Any], config: AuditConfig, *, look: bool) -> Network:
    """A generator that needs no rebuilding: its computation is in the file, and only arithmetic."""
    name = Path(subject["path"]).name
    given = next((flag(setting) for setting in _OF_WEIGHTS if getattr(config, setting) is not None), None)
    if given is not None:
        raise LoadError(f"{given} was given, and {name} is a whole program", f"leave {given} out")
    made = program.ready(config, name, look=look)
    facts = {"weights": "the whole file", **subject, "family": made.family, "parameters": program.numbers}
    said = (*made.assumptions, *set_knobs(made.module, config, name))
    return Network(made.module, made.latent, made.output, made.classes, made.condition, facts, _shown(said), tuple(map(printable, notes)))


def _settings(tree: Any) -> Mapping[str, Any]:
    """What a file holds beside its weights, by name: settings, and vectors such as a mean style."""
    return {str(key): entry for key, entry in tree.items() if not isinstance(entry, Tensor) or entry.ndim == 1} if isinstance(tree, Mapping) else {}


def _adapted(module: nn.Module, config: AuditConfig, subject: Mapping[str, Any], notes: tuple[str, ...]) -> Network:
    found = adapt(module, config)
    said = (*found.assumptions, *set_knobs(module, config, type(module).__name__))
    if found.condition == "concat":
        said = (*said, Assumption(PLACE, f"{config.class_place or 'after'} the latents", "flag" if config.class_place else "default"))
    facts = {"family": type(module).__name__, "parameters": sum(entry.numel() for entry in module.parameters()), **subject}
    if config.class_place is not None and (found.condition != "concat" or config.class_place not in ("before", "after")):
        takes = "no class" if found.condition is None else f"its class as --condition {found.condition}"
        raise LoadError(f"--class-place {config.class_place} was given, and {type(module).__name__} takes {takes}", "leave --class-place out")
    return Network(module, found.latent, found.output, found.classes, found.condition, facts, said, notes, config.class_place == "before")


def _whole_module(tree: Any, config: AuditConfig, name: str) -> tuple[nn.Module, str] | None:
    """The module of a trusted file: the file itself, or the generator among the modules of a training dict."""
    if isinstance(tree, nn.Module):
        return tree, "the whole file"
    if not isinstance(tree, Mapping):
        return None
    modules = {str(key): entry for key, entry in tree.items() if isinstance(entry, nn.Module)}
    if config.key in modules:
        return modules[str(config.key)], f"{config.key} (by --key)"
    wanted = ("average", "generator") if config.weights == "ema" else ("generator", "average")
    for kind in wanted:
        fitting = [key for key in modules if role(key)[0] == kind]
        if len(fitting) > 1:
            raise LoadError(f"{name} holds several generators: {', '.join(fitting[:5])}", f"choose one: --key {fitting[0]}")
        if fitting:
            return modules[fitting[0]], fitting[0]
    return None


def _shown(assumptions: tuple[Assumption, ...]) -> tuple[Assumption, ...]:
    return tuple(Assumption(entry.what, printable(entry.value), entry.source) for entry in assumptions)


def _siblings(path: str) -> list[str]:
    folder = Path(path).resolve().parent
    files = (entry.name for entry in folder.iterdir() if entry.suffix in WEIGHT_SUFFIXES)
    return sorted(entry for entry in files if role(Path(entry).stem)[0] in ("generator", "average"))


def _refuse_assumptions(network: Network, name: str) -> None:
    """--strict: an assumption that neither file nor flag backs is an error that names the flags to give."""
    open_ones = [entry for entry in network.assumptions if not entry.source.startswith(_KNOWN_SOURCES)]
    if not open_ones:
        return
    flags = list(dict.fromkeys(flag for entry in open_ones for flag in re.findall(r"--[a-z-]+(?: or --[a-z-]+)*", entry.what)))
    said = "; ".join(f"{entry.what.split(' (')[0]}: {entry.value.split(' (')[0]} ({entry.source})" for entry in open_ones)
    hint = f"give {', '.join(flags)}" if flags else "put the settings of its training beside the file (config.json), or leave --strict out"
    raise LoadError(f"{name} does not say everything, and --strict takes no assumptions: {said}", hint)


def draw_labels(network: Network, n: int) -> Tensor | None:
    """Classes in turn, (n,) int64; None for a generator that takes none."""
    return None if network.condition is None else torch.arange(n) % (network.classes or 1)
