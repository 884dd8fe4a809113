"""ONNX graphs as generators, by onnxruntime on the CPU: which input is z, which the class, what comes out and in which range.

Nothing but arithmetic is run: `onnx_graph.py` has refused foreign operators and numbers outside the folder. Constants are not
folded when the graph is loaded and the runtime's memory has a ceiling, so that a kilobyte that asks for a terabyte only fails.
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import RebuiltGenerator
from gandiag.checkpoints.file_type import FileInfo
from gandiag.checkpoints.onnx.graph import OnnxGraph, read_onnx_graph
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

_PATIENCE = 60.0  # seconds that two samples may take when the graph is tried
_TRIAL = 2


def read_onnx(file_info: FileInfo, *, trust: bool, sha256: str) -> FileContents:
    """The graph as a program; it is run by nobody yet."""
    return FileContents(OnnxProgram(file_info.path, read_onnx_graph(file_info.path)), "onnx", sha256)


@dataclass(frozen=True, slots=True)
class OnnxProgram:
    """A graph on disk. See `Program`."""

    path: Path
    graph: OnnxGraph

    @property
    def n_parameters(self) -> int:
        return self.graph.numel

    def build_generator(self, config: AuditConfig, name: str, *, inspect_only: bool) -> RebuiltGenerator:
        if not self.graph.outputs:
            raise LoadError(
                f"{name} is an ONNX graph without outputs", "check it with onnx.checker, or export it again"
            )
        feeds = parse_graph_inputs(self.graph, name)
        latent, said = infer_latent(feeds.latent, config, name)
        require_valid_shape((feeds.batch_size or 1, *latent.shape), "batches of latents", name)
        classes, condition, told = infer_classes(self.graph, feeds, config, name)
        module = OnnxModule(_session(self.path, name), feeds, condition, classes)
        shape, span = get_declared_shape(self.graph) if inspect_only else None, None
        if shape is None:
            made = _tried(module, latent, classes, name)
            shape, span = tuple(made.shape[1:]), (float(made.min()), float(made.max()))
        require_valid_shape(shape, "outputs", name)
        output, module.channels_last, module.divisor, shown = infer_output(self.graph, shape, span, config)
        return RebuiltGenerator(
            "ONNX graph",
            module,
            latent,
            output,
            classes,
            condition,
            (*said, *told, *shown, *list_graph_assumptions(self.graph, feeds)),
        )


class OnnxModule(nn.Module):
    """forward(z, labels): the output as float32 on the CPU, channels first, in the batches that the graph takes."""

    def __init__(self, session: Any, inputs: GraphInputs, condition: LabelEncoding | None, classes: int | None) -> None:
        super().__init__()
        self.session, self.inputs, self.condition, self.classes = session, inputs, condition, classes
        self.output_name: str = session.get_outputs()[0].name
        self.channels_last, self.divisor = False, 1.0
        self.run_options: Any = None  # of one run; the first has a time limit

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxModule:
        return self  # a session cannot be copied, and has no state that sampling would change

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if z.requires_grad and torch.is_grad_enabled():
            raise OutputError("an ONNX graph has no gradients", "audit the state dict, where this measurement matters")
        step = self.inputs.batch_size or max(1, len(z))
        parts = [
            self._part(z[start : start + step], None if labels is None else labels[start : start + step], step)
            for start in range(0, len(z), step)
        ]
        made = torch.cat(parts) if parts else torch.empty(0)
        made = made.movedim(-1, 1) if self.channels_last else made
        return made / self.divisor if self.divisor != 1 else made

    def _part(self, z: Tensor, labels: Tensor | None, step: int) -> Tensor:
        """One call; a last batch that is short is filled up with its first row."""
        rows = torch.arange(step) % len(z) if self.inputs.batch_size else torch.arange(len(z))
        feed = {self.inputs.latent.name: z.detach().cpu()[rows].numpy().astype(FLOAT_DTYPES[self.inputs.latent.dtype])}
        if self.inputs.label is not None and labels is not None:
            value = self.inputs.label
            given = labels.detach().cpu()[rows]
            feed[value.name] = given.numpy().astype(INTEGER_DTYPES.get(value.dtype) or FLOAT_DTYPES[value.dtype])
            feed[value.name] = (
                feed[value.name][:, None]
                if value.dtype in INTEGER_DTYPES and len(value.dims) == 2
                else feed[value.name]
            )
        feed |= {
            value.name: np.ones([1] * len(value.dims), FLOAT_DTYPES[value.dtype]) for value in self.inputs.constants
        }
        return torch.from_numpy(np.asarray(self.run_session(feed), dtype=np.float32))[: len(z)]

    def run_session(self, input_arrays: dict[str, Any]) -> Any:
        """The bare runtime. OutputError with its complaint; MemoryError where it met the ceiling."""
        try:
            return self.session.run([self.output_name], input_arrays, self.run_options)[0]
        except Exception as wrong:
            first = str(wrong).strip().splitlines()[0][:200]
            if "arena" in str(wrong) or "bad_alloc" in str(wrong) or "allocat" in str(wrong).lower():
                raise MemoryError(first) from None
            raise OutputError(f"the ONNX graph failed: {first}", "check that it runs where it was exported") from None


# the runtime


def _session(path: Path, name: str) -> Any:
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.log_severity_level, options.inter_op_num_threads, options.intra_op_num_threads = (
        4,
        1,
        torch.get_num_threads(),
    )
    options.add_session_config_entry("session.use_env_allocators", "1")
    try:
        return runtime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
        )
    except Exception as wrong:  # the runtime's own classes, each with a long text
        first = (
            str(wrong).strip().splitlines()[0].rpartition(" : ")[2][:160]
            if str(wrong).strip()
            else type(wrong).__name__
        )
        raise LoadError(
            f"{name} is an ONNX graph that onnxruntime does not take: {first}",
            "check it with onnx.checker, or export it again",
        ) from None


@cache
def _runtime() -> Any:
    """onnxruntime, with a ceiling of half the machine's memory for all graphs together."""
    try:
        import onnxruntime
    except ImportError:
        raise LoadError(
            "an ONNX graph needs onnxruntime, which is not installed", "pip install 'gandiag[onnx]'"
        ) from None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 1 << 33
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    with contextlib.suppress(Exception):  # somebody else in this process has set one already
        onnxruntime.create_and_register_allocator(
            place, onnxruntime.OrtArenaCfg({"max_mem": memory // 2, "arena_extend_strategy": 1})
        )
    return onnxruntime


def _tried(module: OnnxModule, latent: LatentSpec, classes: int | None, name: str) -> Tensor:
    """Two samples, within a minute. LoadError with the runtime's complaint."""
    z = torch.randn(_TRIAL, *latent.shape, generator=torch.Generator().manual_seed(3))
    labels = None if classes is None else torch.arange(_TRIAL) % classes
    labels = (
        labels if module.condition != "onehot" or labels is None else torch.nn.functional.one_hot(labels, classes or -1)
    )
    options = _runtime().RunOptions()
    timer = threading.Timer(_PATIENCE, lambda: setattr(options, "terminate", True))
    timer.daemon = True
    module.run_options = options
    timer.start()
    try:
        with torch.no_grad():
            made: Tensor = module(z, labels)
    except MemoryError:
        what = f"{name} asks for more memory than half of this machine's for {_TRIAL} samples"
        raise LoadError(what, "run it on a larger machine, if you trust its size") from None
    except OutputError as wrong:
        late = " (it was stopped after a minute)" if options.terminate else ""
        raise LoadError(f"{name} does not run: {wrong.message}{late}", wrong.hint) from None
    finally:
        timer.cancel()
        module.run_options = None
    if made.ndim < 2 or len(made) != _TRIAL:
        raise LoadError(
            f"{name} gives {tuple(made.shape)} for {_TRIAL} latents, not one sample each",
            "export it with a batch axis first",
        )
    return made
