"""An ONNX graph as a generator, run by onnxruntime on the CPU in a process of its own (`process.py`).

Only arithmetic is run: `parser.py` refuses custom operators and tensors outside the folder. The process has limits on
time and memory, so a kilobyte that asks for a terabyte or for a year fails cleanly. Nothing is run to inspect a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import RebuiltGenerator
from gandiag.checkpoints.file_type import FileInfo
from gandiag.checkpoints.onnx.graph import OnnxGraph
from gandiag.checkpoints.onnx.parser import read_onnx_graph
from gandiag.checkpoints.onnx.process import GraphProcess
from gandiag.checkpoints.onnx.signature import (
    FLOAT_DTYPES,
    INTEGER_DTYPES,
    GraphInputs,
    get_declared_shape,
    infer_classes,
    infer_latent,
    infer_output,
    list_graph_assumptions,
    parse_graph_inputs,
    require_valid_shape,
)
from gandiag.checkpoints.readers import FileContents
from gandiag.config import AuditConfig
from gandiag.errors import LoadError, OutputError
from gandiag.interfaces import LabelEncoding, LatentSpec

_TRIAL_BATCH = 2
_EXPORT_AGAIN = "check it with onnx.checker, or export it again"


def read_onnx(file_info: FileInfo, *, trust: bool, sha256: str) -> FileContents:
    """The graph as a program, parsed but not run."""
    return FileContents(OnnxProgram(file_info.path, read_onnx_graph(file_info.path)), "onnx", sha256)


@dataclass(frozen=True, slots=True)
class OnnxProgram:
    """A graph on disk. See `readers.GeneratorProgram`."""

    path: Path
    graph: OnnxGraph

    @property
    def n_parameters(self) -> int:
        return self.graph.numel

    def build_generator(self, config: AuditConfig, name: str, *, inspect_only: bool) -> RebuiltGenerator:
        """The graph as a generator. Runs a trial batch; with `inspect_only` nothing is run or opened."""
        if not self.graph.outputs:
            raise LoadError(f"{name} is an ONNX graph without outputs", _EXPORT_AGAIN)
        inputs = parse_graph_inputs(self.graph, name)
        latent, latent_assumptions = infer_latent(inputs.latent, config, name)
        require_valid_shape((inputs.batch_size or 1, *latent.shape), "batches of latents", name)
        classes, condition, class_assumptions = infer_classes(self.graph, inputs, config, name)
        process = None if inspect_only else self._open_process(name)
        module = OnnxModule(process, self.graph.outputs[0].name, inputs, condition, classes)
        shape, value_range = get_declared_shape(self.graph), None
        if process is None and shape is None:
            raise LoadError(
                f"{name} does not declare the shape of its output, and nothing is run to inspect a file",
                "run it once: gandiag audit --dry-run",
            )
        if process is not None or shape is None:
            samples = _run_trial(module, latent, classes, name)
            shape, value_range = tuple(samples.shape[1:]), (float(samples.min()), float(samples.max()))
        require_valid_shape(shape, "outputs", name)
        output = infer_output(self.graph, shape, value_range, config)
        module.channels_last, module.divisor = output.channels_last, output.divisor
        assumptions = (
            *latent_assumptions,
            *class_assumptions,
            *output.assumptions,
            *list_graph_assumptions(self.graph, inputs),
        )
        return RebuiltGenerator("ONNX graph", module, latent, output.spec, classes, condition, assumptions)

    def _open_process(self, name: str) -> GraphProcess:
        files = [self.path, *(self.path.parent / external for external in self.graph.external_files)]
        n_bytes = sum(file.stat().st_size for file in files)
        return GraphProcess(self.path, name, n_bytes=n_bytes, threads=torch.get_num_threads())


class OnnxModule(nn.Module):
    """forward(z, labels): the output as float32 on the CPU, channels first, in batches of the size the graph takes.

    `process` is None where the file is only inspected.
    """

    def __init__(
        self,
        process: GraphProcess | None,
        output_name: str,
        inputs: GraphInputs,
        condition: LabelEncoding | None,
        classes: int | None,
    ) -> None:
        super().__init__()
        self.process, self.inputs, self.condition, self.classes = process, inputs, condition, classes
        self.output_name = output_name
        self.channels_last, self.divisor = False, 1.0

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxModule:
        return self  # a process cannot be copied, and has no state that sampling would change

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if z.requires_grad and torch.is_grad_enabled():
            raise OutputError("an ONNX graph has no gradients", "audit the state dict if this measurement matters")
        size = self.inputs.batch_size or max(1, len(z))
        batches = [
            self._run_batch(z[start : start + size], None if labels is None else labels[start : start + size], size)
            for start in range(0, len(z), size)
        ]
        output = torch.cat(batches) if batches else torch.empty(0)
        output = output.movedim(-1, 1) if self.channels_last else output
        return output / self.divisor if self.divisor != 1 else output

    def _run_batch(self, z: Tensor, labels: Tensor | None, size: int) -> Tensor:
        """One call. If the batch size is fixed, a short last batch is filled up with its own rows."""
        rows = torch.arange(size) % len(z) if self.inputs.batch_size else torch.arange(len(z))
        latent, label = self.inputs.latent, self.inputs.label
        arrays = {latent.name: z.detach().cpu()[rows].numpy().astype(FLOAT_DTYPES[latent.dtype])}
        if label is not None and labels is not None:
            dtype = INTEGER_DTYPES.get(label.dtype) or FLOAT_DTYPES[label.dtype]
            values = labels.detach().cpu()[rows].numpy().astype(dtype)
            is_column = label.dtype in INTEGER_DTYPES and len(label.dims) == 2
            arrays[label.name] = values[:, None] if is_column else values
        for value in self.inputs.constants:
            arrays[value.name] = np.ones([1] * len(value.dims), FLOAT_DTYPES[value.dtype])
        return torch.from_numpy(np.array(self.run_graph(arrays, len(z))))[: len(z)]

    def run_graph(self, arrays: dict[str, Any], n_samples: int) -> Any:
        """The graph's output. OutputError with the runtime's message; MemoryError if it reached the memory limit."""
        if self.process is None:
            raise OutputError("the graph was only inspected", "audit it")
        return self.process.run(arrays, n_samples)


def _run_trial(module: OnnxModule, latent: LatentSpec, classes: int | None, name: str) -> Tensor:
    """Two samples. LoadError with the runtime's message."""
    z = torch.randn(_TRIAL_BATCH, *latent.shape, generator=torch.Generator().manual_seed(3))
    labels = None if classes is None else torch.arange(_TRIAL_BATCH) % classes
    if labels is not None and module.condition == "onehot":
        labels = torch.nn.functional.one_hot(labels, classes or -1)
    try:
        with torch.no_grad():
            samples: Tensor = module(z, labels)
    except MemoryError:
        raise LoadError(
            f"{name} needs more memory than its size allows, for {_TRIAL_BATCH} samples", "export it again, smaller"
        ) from None
    except OutputError as error:
        raise LoadError(f"{name} does not run: {error.message}", error.hint) from None
    if samples.ndim < 2 or len(samples) != _TRIAL_BATCH:
        raise LoadError(
            f"{name} returns {tuple(samples.shape)} for {_TRIAL_BATCH} latents, not one sample each",
            "export it with the batch axis first",
        )
    return samples
