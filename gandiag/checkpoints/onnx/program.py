"""Runs an ONNX graph as a generator through onnxruntime on the CPU.

Only arithmetic is run: `parser.py` refuses custom operators and tensors outside the folder. Constants are not folded
when the graph is loaded and the runtime's memory is capped, so a kilobyte that asks for a terabyte fails cleanly.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import RebuiltGenerator
from gandiag.checkpoints.file_type import FileInfo
from gandiag.checkpoints.key_names import first_line
from gandiag.checkpoints.onnx.graph import OnnxGraph
from gandiag.checkpoints.onnx.parser import read_onnx_graph
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

_TRIAL_TIMEOUT = 60.0  # seconds for the trial batch
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
        """The graph as a generator. Runs a trial batch unless `inspect_only` and the file declares the output shape."""
        if not self.graph.outputs:
            raise LoadError(f"{name} is an ONNX graph without outputs", _EXPORT_AGAIN)
        inputs = parse_graph_inputs(self.graph, name)
        latent, latent_assumptions = infer_latent(inputs.latent, config, name)
        require_valid_shape((inputs.batch_size or 1, *latent.shape), "batches of latents", name)
        classes, condition, class_assumptions = infer_classes(self.graph, inputs, config, name)
        module = OnnxModule(_create_session(self.path, name), inputs, condition, classes)
        shape, value_range = get_declared_shape(self.graph) if inspect_only else None, None
        if shape is None:
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


class OnnxModule(nn.Module):
    """forward(z, labels): the output as float32 on the CPU, channels first, in batches of the size the graph takes."""

    def __init__(self, session: Any, inputs: GraphInputs, condition: LabelEncoding | None, classes: int | None) -> None:
        super().__init__()
        self.session, self.inputs, self.condition, self.classes = session, inputs, condition, classes
        self.output_name: str = session.get_outputs()[0].name
        self.channels_last, self.divisor = False, 1.0
        self.run_options: Any = None  # set during the trial batch, which has a time limit

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxModule:
        return self  # a session cannot be copied, and has no state that sampling would change

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
        return torch.from_numpy(np.asarray(self.run_session(arrays), dtype=np.float32))[: len(z)]

    def run_session(self, input_arrays: dict[str, Any]) -> Any:
        """The runtime's output. OutputError with its message; MemoryError if it reached the memory cap."""
        try:
            return self.session.run([self.output_name], input_arrays, self.run_options)[0]
        except Exception as error:
            message = first_line(error, 200)
            if "arena" in str(error) or "bad_alloc" in str(error) or "allocat" in str(error).lower():
                raise MemoryError(message) from None
            raise OutputError(f"the ONNX graph failed: {message}", "check that it runs where it was exported") from None


# the runtime


def _create_session(path: Path, name: str) -> Any:
    runtime = _import_runtime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.inter_op_num_threads, options.intra_op_num_threads = 1, torch.get_num_threads()
    options.add_session_config_entry("session.use_env_allocators", "1")
    try:
        return runtime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
        )
    except Exception as error:  # the runtime's own classes, each with a long message
        message = first_line(error, 10_000).rpartition(" : ")[2][:160]
        raise LoadError(f"onnxruntime cannot load the ONNX graph {name}: {message}", _EXPORT_AGAIN) from None


@cache
def _import_runtime() -> Any:
    """onnxruntime, limited to half the machine's memory for all graphs together."""
    try:
        import onnxruntime
    except ImportError:
        raise LoadError(
            "an ONNX graph needs onnxruntime, which is not installed", "pip install 'gandiag[onnx]'"
        ) from None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 1 << 33
    memory_info = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    with contextlib.suppress(Exception):  # other code in this process may have registered one already
        onnxruntime.create_and_register_allocator(
            memory_info, onnxruntime.OrtArenaCfg({"max_mem": memory // 2, "arena_extend_strategy": 1})
        )
    return onnxruntime


def _run_trial(module: OnnxModule, latent: LatentSpec, classes: int | None, name: str) -> Tensor:
    """Two samples, within a minute. LoadError with the runtime's message."""
    z = torch.randn(_TRIAL_BATCH, *latent.shape, generator=torch.Generator().manual_seed(3))
    labels = None if classes is None else torch.arange(_TRIAL_BATCH) % classes
    if labels is not None and module.condition == "onehot":
        labels = torch.nn.functional.one_hot(labels, classes or -1)
    options = _import_runtime().RunOptions()
    try:
        with _time_limit(module, options), torch.no_grad():
            samples: Tensor = module(z, labels)
    except MemoryError:
        raise LoadError(
            f"{name} needs more than half of this machine's memory for {_TRIAL_BATCH} samples",
            "run it on a larger machine, if its size is plausible",
        ) from None
    except OutputError as error:
        stopped = " (it was stopped after a minute)" if options.terminate else ""
        raise LoadError(f"{name} does not run: {error.message}{stopped}", error.hint) from None
    if samples.ndim < 2 or len(samples) != _TRIAL_BATCH:
        raise LoadError(
            f"{name} returns {tuple(samples.shape)} for {_TRIAL_BATCH} latents, not one sample each",
            "export it with the batch axis first",
        )
    return samples


@contextlib.contextmanager
def _time_limit(module: OnnxModule, options: Any) -> Iterator[None]:
    """Run the module under options that end a call after a minute."""
    timer = threading.Timer(_TRIAL_TIMEOUT, lambda: setattr(options, "terminate", True))
    timer.daemon = True
    module.run_options = options
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        module.run_options = None
