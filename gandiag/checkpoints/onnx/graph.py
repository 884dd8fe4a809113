"""An ONNX graph as data: inputs, outputs, operators and stored tensors. Torch-free."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

# Operators that may follow the last activation without changing values.
_PASS_THROUGH = ("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")


@dataclass(frozen=True, slots=True)
class ValueInfo:
    """An input or output. `dims`: sizes, or the names of dynamic ones ("" without a name)."""

    name: str
    dtype: str
    dims: tuple[int | str, ...]

    def describe(self) -> str:
        """ "z float32 (batch, 8)"."""
        return f"{self.name} {self.dtype} ({', '.join(map(str, self.dims))})"


@dataclass(slots=True)
class OnnxGraph:
    """A file's graph.

    `nodes`: (operator, inputs, outputs) of the main graph; `external_files`: files that hold its tensors.
    """

    inputs: list[ValueInfo] = field(default_factory=list)
    outputs: list[ValueInfo] = field(default_factory=list)
    operator_counts: Counter[str] = field(default_factory=Counter)
    nodes: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = field(default_factory=list)
    tensor_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    external_files: set[str] = field(default_factory=set)
    producer: str = ""
    opset: int = 0
    n_tensors: int = 0
    numel: int = 0
    nbytes: int = 0

    def find_last_operator(self, output: str) -> str:
        """The operator that computes an output's values, before any reshaping or casting; "" if unknown."""
        producers = {name: (operator, inputs) for operator, inputs, outputs in self.nodes for name in outputs}
        for _ in range(len(producers) + 1):
            operator, inputs = producers.get(output, ("", ()))
            if operator not in _PASS_THROUGH or not inputs:
                return operator
            output = inputs[0]
        return ""

    def infer_num_classes(self, label_name: str) -> int | None:
        """Number of classes an integer input chooses among: the rows of the table that it indexes."""
        aliases = {label_name}
        for operator, inputs, outputs in self.nodes:
            if operator in _PASS_THROUGH and inputs and inputs[0] in aliases:
                aliases.update(outputs)
            elif (
                operator == "Gather" and len(inputs) > 1 and inputs[1] in aliases and self.tensor_shapes.get(inputs[0])
            ):
                return self.tensor_shapes[inputs[0]][0]
        return None
