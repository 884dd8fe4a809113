"""ONNX graphs as generators, run by onnxruntime on the CPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from assumption_lookup import find_assumption
from torch import Tensor

import gandiag
from gandiag.checkpoints.loader import load_generator
from gandiag.checkpoints.onnx.parser import read_onnx_graph
from gandiag.config import AuditConfig
from gandiag.errors import LoadError, OutputError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

RNG = np.random.default_rng(0)
W = RNG.normal(size=(8, 48)).astype(np.float32)
TABLE = RNG.normal(size=(5, 48)).astype(np.float32)
Z = torch.randn(7, 8, generator=torch.Generator().manual_seed(0))


def value(name: str, dims: Sequence[int | str], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, dims)


def save_graph(
    path: Path, nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], tensors: dict[str, Any]
) -> Path:
    initializers = [numpy_helper.from_array(np.asarray(entry), name) for name, entry in tensors.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="tests"), path
    )
    return path


def save_image_graph(
    path: Path,
    *,
    batch: int | str = "batch",
    last: str = "Tanh",
    layout: str = "first",
    label: str | None = None,
    size: int = 4,
) -> Path:
    """z W [+ table[y]], reshaped to 3 x 4 x 4, squashed."""
    node = helper.make_node
    nodes, inputs = [node("MatMul", ["z", "W"], ["h0"])], [value("z", [batch, 8])]
    tensors: dict[str, Any] = {"W": W, "shape": np.array([-1, 3, size, size], dtype=np.int64)}
    current = "h0"
    if label == "index":
        nodes += [node("Gather", ["table", "y"], ["e"]), node("Add", ["h0", "e"], ["h1"])]
        inputs.append(value("y", [batch], TensorProto.INT64))
        current, tensors["table"] = "h1", TABLE
    elif label == "onehot":
        nodes += [node("MatMul", ["c", "table"], ["e"]), node("Add", ["h0", "e"], ["h1"])]
        inputs.append(value("c", [batch, 5]))
        current, tensors["table"] = "h1", TABLE
    nodes += [node(last, [current], ["a"]), node("Reshape", ["a", "shape"], ["image" if layout == "first" else "b"])]
    if layout == "last":
        nodes.append(node("Transpose", ["b"], ["image"], perm=[0, 2, 3, 1]))
    dims = [batch, 3, size, size] if layout == "first" else [batch, size, size, 3]
    return save_graph(path, nodes, inputs, [value("image", dims)], tensors)


def expected_images(labels: Tensor | None = None) -> Tensor:
    table = torch.zeros(len(Z), 48) if labels is None else torch.from_numpy(TABLE)[labels]
    return torch.tanh(Z @ torch.from_numpy(W) + table).reshape(-1, 3, 4, 4)


@pytest.mark.parametrize("options", [{}, {"batch": 1}, {"batch": 4}, {"layout": "last"}])
def test_the_graph_is_the_generator(tmp_path: Path, options: dict[str, Any]) -> None:
    network = load_generator(save_image_graph(tmp_path / "g.onnx", **options))
    assert (network.latent.dim, network.output.shape, network.output.range, network.classes) == (
        8,
        (3, 4, 4),
        (-1.0, 1.0),
        None,
    )
    assert torch.allclose(network.forward(Z), expected_images(), atol=1e-6)
    output_range = find_assumption(network, "output_range")
    assert (output_range.value, output_range.source) == ((-1.0, 1.0), "file")
    assert output_range.note == "the last operator is Tanh"
    assert network.subject["loader"] == "onnx" and network.subject["parameters"] >= W.size


@pytest.mark.parametrize("condition", ["index", "onehot"])
def test_the_class_is_an_input(tmp_path: Path, condition: str) -> None:
    network = load_generator(save_image_graph(tmp_path / "g.onnx", label=condition))
    assert (network.classes, network.condition) == (5, condition)
    labels = torch.arange(7) % 5
    assert torch.allclose(network.forward(Z, labels), expected_images(labels), atol=1e-6)


def test_ranges_by_the_last_operator_and_by_flag(tmp_path: Path) -> None:
    assert load_generator(save_image_graph(tmp_path / "s.onnx", last="Sigmoid")).output.range == (0.0, 1.0)
    network = load_generator(save_image_graph(tmp_path / "r.onnx", last="Identity"))
    output_range = find_assumption(network, "output_range")
    assert output_range.source == "default" and "a few outputs span" in output_range.note
    assert load_generator(tmp_path / "r.onnx", AuditConfig(output_range=(0.0, 1.0))).output.range == (0.0, 1.0)
    with pytest.raises(LoadError, match="--strict allows no assumptions"):
        load_generator(tmp_path / "r.onnx", AuditConfig(strict=True))


def test_bytes_vectors_and_truncation(tmp_path: Path) -> None:
    node = helper.make_node
    path = save_graph(
        tmp_path / "v.onnx",
        [node("Mul", ["z", "psi"], ["h"]), node("MatMul", ["h", "W"], ["x"])],
        [value("z", ["n", 8]), value("psi", [1])],
        [value("x", ["n", 48])],
        {"W": W},
    )
    network = load_generator(path)
    assert network.output.kind == "vector" and torch.allclose(network.forward(Z), Z @ torch.from_numpy(W), atol=1e-5)
    constant = find_assumption(network, "constant_input")
    assert (constant.value, constant.note) == ("psi", "held at 1: no truncation")
    nodes = [
        node("MatMul", ["z", "W"], ["h"]),
        node("Abs", ["h"], ["p"]),
        node("Reshape", ["p", "s"], ["r"]),
        node("Cast", ["r"], ["x"], to=TensorProto.UINT8),
    ]
    path = save_graph(
        tmp_path / "u.onnx",
        nodes,
        [value("z", ["n", 8])],
        [value("x", ["n", 3, 4, 4], TensorProto.UINT8)],
        {"W": W, "s": np.array([-1, 3, 4, 4], dtype=np.int64)},
    )
    network = load_generator(path)
    assert network.output.range == (0.0, 1.0) and 0 < float(network.forward(Z).max()) <= 1


def test_an_audit_goes_through(tmp_path: Path) -> None:
    real = torch.tanh(torch.randn(240, 8) @ torch.from_numpy(W)).reshape(-1, 3, 4, 4).numpy()
    np.savez(tmp_path / "real.npz", real=real)
    record = gandiag.audit(
        str(save_image_graph(tmp_path / "g.onnx", batch=4)),
        str(tmp_path / "real.npz"),
        n=110,
        budget="quick",
        features="pixels",
        exhibits=False,
    )
    assert record.verdict in ("healthy", "inconclusive", "collapsed") and record.subject["family"] == "ONNX graph"
    assert record.response["axis"] == "scale"
    assert record.measurements["bn_mismatch"].reason == "no BatchNorm with stored statistics"


def test_there_are_no_gradients(tmp_path: Path) -> None:
    network = load_generator(save_image_graph(tmp_path / "g.onnx"))
    with pytest.raises(OutputError, match="no gradients"):
        network.module(Z.clone().requires_grad_())


def test_inspect_does_not_run_the_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gandiag.cli.main import run_command_line

    assert run_command_line(["inspect", str(save_image_graph(tmp_path / "g.onnx", label="index"))]) == 0
    out = capsys.readouterr().out
    for part in (
        "graph of 5 operators, opset 17, written by tests",
        "input z",
        "float32 (batch, 8)",
        "input y",
        "int64 (batch)",
        "5, passed as an index",
        "1 Tanh",
    ):
        assert part in out


@pytest.mark.parametrize(
    "inputs, message",
    [
        ([("x", ["n", 3, 32, 32])], "takes an image"),
        ([("z", ["n", 8]), ("w", ["n", 16])], "which of them are the latents is unclear"),
        ([("z", ["n", 8]), ("alpha", [1])], "a number that gandiag does not know"),
        ([("z", ["n", "d"])], "leaves the size of its latents open"),
        ([("z", [2, 8]), ("y", [3, 4])], "the batch sizes differ"),
        ([], "takes no inputs"),
    ],
)
def test_unsupported_inputs(tmp_path: Path, inputs: list[tuple[str, list[Any]]], message: str) -> None:
    nodes = [helper.make_node("Identity", [inputs[0][0] if inputs else "W"], ["out"])]
    path = save_graph(
        tmp_path / "g.onnx", nodes, [value(*entry) for entry in inputs], [value("out", ["n", 8])], {"W": W}
    )
    with pytest.raises(LoadError, match=message) as caught:
        load_generator(path)
    assert caught.value.hint


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"latent_dim": 9}, "has 8 values"),
        ({"classes": 3}, "takes no class"),
        ({"model": "a.b:C"}, "is a complete program"),
    ],
)
def test_flags_that_contradict_the_graph(tmp_path: Path, flags: dict[str, Any], message: str) -> None:
    with pytest.raises(LoadError, match=message):
        load_generator(save_image_graph(tmp_path / "g.onnx"), AuditConfig(**flags))


# hostile graphs


def save_with_external_data(path: Path, location: str) -> Path:
    """A graph whose matrix is in another file."""
    save_image_graph(path)
    model = onnx.load(path)
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    entry = model.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", location
    path.write_bytes(model.SerializeToString())
    return path


def test_tensors_in_a_file_of_the_same_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(W.tobytes())
    network = load_generator(save_with_external_data(tmp_path / "g.onnx", "weights.bin"))
    assert torch.allclose(network.forward(Z), expected_images(), atol=1e-6)


@pytest.mark.parametrize(
    "location, message",
    [
        ("../weights.bin", "outside its folder"),
        ("/etc/passwd", "outside its folder"),
        ("link.bin", "a link or not a file"),
        ("missing.bin", "not in its folder"),
        ("..", "outside its folder"),
        ("sub/../weights.bin", "outside its folder"),
    ],
)
def test_tensors_elsewhere_are_refused(tmp_path: Path, location: str, message: str) -> None:
    (tmp_path / "weights.bin").write_bytes(W.tobytes())
    (tmp_path / "in").mkdir()
    os.symlink(tmp_path / "weights.bin", tmp_path / "in" / "link.bin")
    with pytest.raises(LoadError, match=message):
        load_generator(save_with_external_data(tmp_path / "in" / "g.onnx", location))


def save_memory_bomb(path: Path, count: int) -> Path:
    node = helper.make_node
    nodes = [
        node("ConstantOfShape", ["s"], ["c"]),
        node("ReduceSum", ["c"], ["r"], keepdims=0),
        node("Add", ["z", "r"], ["x"]),
    ]
    return save_graph(
        path, nodes, [value("z", ["n", 8])], [value("x", ["n", 8])], {"s": np.array([count], dtype=np.int64)}
    )


def test_a_graph_that_asks_for_terabytes_fails(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"more memory than its size allows"):
        load_generator(save_memory_bomb(tmp_path / "g.onnx", 1 << 40))
    assert load_generator(tmp_path / "g.onnx", inspect_only=True).output.shape == (8,)  # inspecting it runs nothing


def test_custom_operators_and_damage(tmp_path: Path) -> None:
    path = save_graph(
        tmp_path / "g.onnx",
        [helper.make_node("Evil", ["z"], ["x"], domain="evil.ops")],
        [value("z", ["n", 8])],
        [value("x", ["n", 8])],
        {},
    )
    with pytest.raises(LoadError, match=r"custom operators \(evil.ops\)"):
        load_generator(path)
    whole = save_image_graph(tmp_path / "h.onnx").read_bytes()
    for cut in range(5, len(whole), 97):
        (tmp_path / "cut.onnx").write_bytes(whole[:cut])
        with pytest.raises(LoadError):
            load_generator(tmp_path / "cut.onnx")
    model = onnx.load(tmp_path / "h.onnx")
    model.graph.initializer[0].dims[0] = 1 << 40
    (tmp_path / "claims.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(LoadError, match="claims"):
        read_onnx_graph(tmp_path / "claims.onnx")
