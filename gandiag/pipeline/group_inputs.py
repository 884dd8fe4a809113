"""Opens what a grouped audit compares: samples with a group each, from files, memory, a generator or a function."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.config import AuditConfig
from gandiag.errors import ConfigError, SourceError
from gandiag.interfaces import Assumption, Batch, OutputSpec, SampleSource
from gandiag.pipeline.subject import AuditSubject, is_sample_path, open_subject
from gandiag.sampling.condition_function import DEFAULT_PER_GROUP, is_condition_function, sample_conditions
from gandiag.sampling.group_names import Names, choose_sample_array, names_from_sequence, read_group_names
from gandiag.sampling.preprocessing import DEFAULT_RANGE
from gandiag.sampling.sampler import Sampler
from gandiag.sampling.sources import SampleSet, generate_batches, open_samples
from gandiag.sampling.stream_names import GENERATED_ORDER
from gandiag.sampling.torch_datasets import DatasetReader, read_item, to_channels_first

MIN_REFERENCE_ROWS = 64  # per group: a larger reference group is cut to this, or to 4 times the subject's largest
REFERENCE_FACTOR = 4


@dataclass(frozen=True, slots=True)
class GroupInputs:
    """What only the library can pass: groups and references as objects. See gandiag.audit."""

    groups: Any = None
    against: Any = None
    against_groups: Any = None


@dataclass(frozen=True, slots=True)
class GroupedSource:
    """Samples with a group each. `groups` (n,); `start(batch_size)`: their batches, in that order."""

    name: str
    output: OutputSpec
    groups: tuple[str, ...]
    start: Callable[[int], Iterator[Batch]]
    subject: AuditSubject | None = None
    notes: tuple[str, ...] = ()
    assumptions: tuple[Assumption, ...] = ()
    scale: float | None = None  # latent scale of a generator


def is_grouped_audit(config: AuditConfig, inputs: GroupInputs | None) -> bool:
    """Whether groups were asked for in any way."""
    asked = inputs is not None and any(part is not None for part in (inputs.groups, inputs.against))
    return asked or any(part is not None for part in (config.group_by, config.against, config.per_class))


def open_grouped_subject(x: Any, config: AuditConfig, inputs: GroupInputs) -> GroupedSource:
    """The subject with its groups. ConfigError where nothing says what the groups are."""
    if is_condition_function(x):
        if inputs.groups is None:
            raise ConfigError("a function needs conditions", "pass groups=[…]: it is called as fn(condition, seeds)")
        samples, names = sample_conditions(x, inputs.groups, config.per_class, config.seed)
        return _from_set(samples, names, name="the function", facts={"loader": "function", "family": "function"})
    return _open_source(x, config, inputs.groups, target=None)


def open_reference(x: Any, config: AuditConfig, inputs: GroupInputs, subject: GroupedSource) -> GroupedSource:
    """The reference of --against: groups by `against_groups`, like the subject's otherwise."""
    if is_condition_function(x):
        conditions = inputs.against_groups if inputs.against_groups is not None else inputs.groups
        if conditions is None:
            raise ConfigError("a function needs conditions", "pass against_groups=[…]")
        samples, names = sample_conditions(x, conditions, config.per_class, config.seed)
        return _from_set(samples, names, target=subject.output, name="the reference function")
    groups = inputs.against_groups
    if groups is None and not isinstance(x, (str, os.PathLike)) and config.group_by is None:
        groups = inputs.groups  # arrays in memory: row i of both belongs to one group
    return _open_source(x, config, groups, target=subject)


def open_real_groups(x: Any, config: AuditConfig, subject: GroupedSource) -> GroupedSource:
    """Real data with groups: by --group-by where it applies to them, else by class folder or label."""
    try:
        return _open_source(x, config, None, target=subject)
    except (ConfigError, SourceError):
        if config.group_by is None:
            raise
        samples = x if isinstance(x, SampleSet) else open_samples(x, npz_key=config.npz_key)
        if samples.labels is None:
            raise
        return _limit_groups(samples, _find_names(samples, None, replace(config, group_by=None), None), subject)


def _open_source(x: Any, config: AuditConfig, groups: Any, *, target: GroupedSource | None) -> GroupedSource:
    is_path = isinstance(x, (str, os.PathLike))
    if isinstance(x, SampleSet) or (is_path and is_sample_path(Path(x))) or _is_memory(x):
        path = Path(x) if is_path else None
        key = config.npz_key if path is None else choose_sample_array(config.group_by, path, config.npz_key)
        samples = x if isinstance(x, SampleSet) else open_samples(x, npz_key=key)
        names = _find_names(samples, path, config, groups)
        if target is None:
            samples = replace(samples, stream=GENERATED_ORDER, _keys=[])
        return _limit_groups(samples, names, target)
    if groups is not None:
        raise ConfigError("groups were passed for a generator", "pass samples, or a function fn(condition, seeds)")
    return _from_generator(open_subject(x, config), config)


def _is_memory(x: Any) -> bool:
    """Whether x holds samples: an array, tensor, Dataset or DataLoader, and no path, network or generator."""
    return not isinstance(x, (str, os.PathLike, torch.nn.Module, Sampler, LoadedGenerator, AuditSubject))


def _find_names(samples: SampleSet, path: Path | None, config: AuditConfig, groups: Any) -> Names:
    if groups is not None:
        return names_from_sequence(groups, samples.n)
    if config.group_by is not None:
        return read_group_names(config.group_by, samples, path)
    labels = samples.labels
    if labels is None:
        raise ConfigError(f"{samples.name} has no groups", "pass --group-by folder, stem, or a CSV of files and groups")
    classes = samples.class_names or ()
    return [classes[label] if label < len(classes) else str(label) for label in labels.tolist()]


def _limit_groups(samples: SampleSet, names: Names, target: GroupedSource | None) -> GroupedSource:
    if target is None:
        return _from_set(samples, names)
    largest = max(Counter(target.groups).values())
    cap, seen = max(MIN_REFERENCE_ROWS, REFERENCE_FACTOR * largest), Counter[str]()
    wanted = set(target.groups)
    if names and wanted.isdisjoint(name for name in names if name is not None):
        wanted = {name for name in names if name is not None}  # the mismatch is reported with both sides' names
    kept: list[str | None] = [None] * len(names)
    for row in samples.choose().tolist():
        name = names[row]
        if name is not None and (name not in wanted or seen[name] < cap):
            seen[name] += 1
            kept[row] = name
    return _from_set(samples, kept, target=target.output, count_ungrouped=False)


def _from_set(
    samples: SampleSet,
    names: Names,
    *,
    target: OutputSpec | None = None,
    name: str | None = None,
    facts: dict[str, Any] | None = None,
    count_ungrouped: bool = True,
) -> GroupedSource:
    """A set of samples, those without a group left out. Images of several sizes are resized to the most common one."""
    rows = torch.tensor([row for row in samples.choose().tolist() if names[row] is not None], dtype=torch.int64)
    if not len(rows):
        raise SourceError(f"no sample of {samples.name} has a group", "check --group-by")
    output, notes = (target, ()) if target is not None else _common_output(samples)
    missing = len(names) - len(rows)
    if missing and count_ungrouped:
        notes = (*notes, f"{missing:,} samples left out: they are in no group")
    about = {
        "path": samples.name if os.path.exists(samples.name) else None,
        "loader": "samples",
        "family": name or samples.name,
        "sha256": samples.fingerprint() if facts is None and target is None else None,
        "weights": None,
        **(facts or {}),
    }
    return GroupedSource(
        name or samples.name,
        output,
        tuple(str(names[row]) for row in rows.tolist()),
        lambda batch_size: samples.read_rows(rows, batch_size, output),
        AuditSubject(output, samples=samples, facts=about),
        notes,
        samples.assumptions(output),
    )


def _common_output(samples: SampleSet) -> tuple[OutputSpec, tuple[str, ...]]:
    """The samples' own format; for images of several sizes, the most common size."""
    reader = samples.reader
    if reader.shape is not None or reader.kind != "image":
        return samples.output, ()
    if isinstance(reader, DatasetReader):
        sizes = Counter(_item_size(reader, index) for index in range(min(reader.n, 256)))
    else:
        sizes = Counter(getattr(reader, "size_counts", {}))
    if not sizes:
        return samples.output, ()
    (height, width), _ = sizes.most_common(1)[0]
    shape = (int(getattr(reader, "channels", 3)), height, width)
    note = f"images of {len(sizes)} sizes, cropped and resized to {width}x{height}, the most common one"
    return OutputSpec("image", shape, DEFAULT_RANGE), (note,)


def _item_size(reader: DatasetReader, index: int) -> tuple[int, int]:
    value = read_item(reader.dataset, index)[0]
    if hasattr(value, "height"):
        return int(value.height), int(value.width)
    height, width = to_channels_first(torch.as_tensor(value)).shape[1:]
    return int(height), int(width)


def _from_generator(subject: AuditSubject, config: AuditConfig) -> GroupedSource:
    """`per_class` samples of every class of a conditional generator; the class of index i is i modulo the number."""
    sampler = subject.sampler
    if sampler is None or sampler.classes is None:
        raise ConfigError(
            "the generator has no classes, so its samples have no groups",
            "pass --classes and --condition where it takes a class, or audit its samples with --group-by",
        )
    per_class, classes = config.per_class or DEFAULT_PER_GROUP, sampler.classes
    count = per_class * classes
    trained = subject.trained_scale
    scale = config.scale
    if trained is not None and not trained.low <= scale <= trained.high:
        scale = trained.value
    source = SampleSource("fake", scale=scale, bn=config.bn, n=count)
    note = () if scale == config.scale else (f"sampled at the trained latent scale, {scale:.3g}",)
    return GroupedSource(
        str(subject.facts.get("path") or "the generator"),
        subject.output,
        tuple(str(index % classes) for index in range(count)),
        lambda batch_size: generate_batches(sampler, source, count, batch_size, seed=config.seed),
        replace(subject),
        note,
        subject.assumptions,
        scale,
    )


def rename_classes(source: GroupedSource, class_names: tuple[str, ...]) -> GroupedSource:
    """The groups of a generator, "0", "1", …, by the class names of the real data, in their order."""
    names = {str(index): name for index, name in enumerate(class_names)}
    return replace(source, groups=tuple(names.get(group, group) for group in source.groups))
