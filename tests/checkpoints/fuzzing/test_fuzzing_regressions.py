"""Failures that the fuzzer found, each as the smallest file that shows it; now refused with one sentence."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz_seeds import FIXTURES, HAS_DIFFUSERS, torch_bytes, zipped
from PIL import Image
from stylegan2_reference import nvidia_tensors, rosinality_tensors
from toy_generators import DCGAN, calibrated, normal, save

from gandiag.checkpoints.architectures.shape_check import check_output_shape, verify_forward
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
from gandiag.errors import GandiagError, LoadError, SourceError
from gandiag.interfaces import LatentSpec, OutputSpec
from gandiag.pipeline.subject import is_sample_path, open_subject
from gandiag.sampling.sources import open_samples


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(GandiagError, match=message) as caught:
        open_subject(path, AuditConfig())
    assert caught.value.hint


@pytest.mark.parametrize(
    "offset, byte", [(46, 0xFF), (6, 0xAD)], ids=["a name that is not UTF-8", "an unknown version"]
)
def test_a_damaged_central_directory(tmp_path: Path, offset: int, byte: int) -> None:
    """zipfile's errors came from the check whether a file holds samples, which comes before it is read."""
    whole = bytearray(torch_bytes({"0.weight": torch.ones(2, 2)}))
    place = whole.find(b"PK\x01\x02")
    whole[place + offset] = byte
    whole[place + 9] |= 0x08  # names are UTF-8
    (tmp_path / "a.pt").write_bytes(whole)
    assert not is_sample_path(tmp_path / "a.pt")
    assert_refused(tmp_path / "a.pt", "ends early .* directory at its end is missing or damaged")


@pytest.mark.parametrize("text", ["{'descr': '|u1', 'shape': (", "{'descr': '|u1"])
def test_an_array_whose_header_ends_in_the_middle(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode())
    assert_refused(tmp_path / "a.npy", r"a\.npy cannot be read")


def test_an_array_that_claims_more_than_it_holds(tmp_path: Path) -> None:
    """numpy allocates what an archive's array claims before reading it."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 2)})
    (tmp_path / "a.npz").write_bytes(zipped({"x.npy": stream.getvalue() + bytes(64)}))
    assert_refused(tmp_path / "a.npz", r"x claims 17,592,186,044,416 bytes but has 64")


def test_an_archive_whose_directory_claims_it_too(tmp_path: Path) -> None:
    """The directory's size is a claim too; a stored entry cannot be larger than its bytes."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 2)})
    whole = bytearray(zipped({"x.npy": stream.getvalue() + bytes(64)}))
    size = struct.pack("<I", len(stream.getvalue()) + 64)
    place = whole.rfind(b"PK\x01\x02")
    assert whole[place + 24 : place + 28] == size
    whole[place + 24 : place + 28] = struct.pack("<I", 2**31)
    (tmp_path / "a.npz").write_bytes(whole)
    assert_refused(tmp_path / "a.npz", r"x claims 2,147,483,648 bytes but has 192")


def test_an_array_header_that_cannot_be_parsed(tmp_path: Path) -> None:
    text = b"-" * 9000
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
    assert_refused(tmp_path / "a.npy", r"a\.npy cannot be read")


def test_a_damaged_lzma_stream(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros((40, 3), np.float32))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.npy", stream.getvalue())
    whole = bytearray((tmp_path / "a.npz").read_bytes())
    start = 30 + len("x.npy") + 4 + 5  # of the stream, after the local header and the LZMA properties
    whole[start : start + 30] = b"\xff" * 30
    (tmp_path / "a.npz").write_bytes(whole)
    assert_refused(tmp_path / "a.npz", r"a\.npz cannot be read")


@pytest.mark.parametrize("shape", [["batch", 2**62], ["batch", 10**9], ["batch", 0], [2**40, 8], [2**62, 8]])
def test_a_graph_with_latents_of_no_possible_size(tmp_path: Path, shape: list[object]) -> None:
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("Relu", ["z"], ["x"])
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("z", "x")]
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:])
    (tmp_path / "a.onnx").write_bytes(
        onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9
        ).SerializeToString()
    )
    assert_refused(tmp_path / "a.onnx", "declares (batches of )?latents of shape|cannot load|is unclear")


def test_a_graph_without_outputs(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("Relu", ["z"], ["x"])
    graph = onnx.helper.make_graph(
        [node], "g", [onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["batch", 8])], []
    )
    (tmp_path / "a.onnx").write_bytes(
        onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9
        ).SerializeToString()
    )
    assert_refused(tmp_path / "a.onnx", "is an ONNX graph without outputs")


@pytest.mark.parametrize("count", [-(2**40), 2**60, float("nan")])
def test_a_damaged_count_of_batches(tmp_path: Path, count: float) -> None:
    """The remaining share of BatchNorm's initial statistics is 0.9 to the power of it."""
    state = calibrated(DCGAN(), normal(12)).state_dict()
    state |= {name: torch.tensor(count) for name in state if name.endswith("num_batches_tracked")}
    assert load_generator(save(state, tmp_path)).output.shape == (3, 32, 32)


def test_an_image_that_ends_early_in_an_archive(tmp_path: Path) -> None:
    """Its header can be read, but the rest, needed for the fingerprint of the real data, cannot."""
    encoded = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(encoded, "PNG")
    whole = bytearray(zipped({"b.png": encoded.getvalue(), "a.png": encoded.getvalue()}))
    place = whole.rfind(b"PK\x01\x02")
    whole[place + 20 : place + 28] = struct.pack("<II", 2 * len(encoded.getvalue()), 2 * len(encoded.getvalue()))
    (tmp_path / "a.zip").write_bytes(whole)
    rows = open_samples(tmp_path / "a.zip").reader
    with pytest.raises(SourceError, match=r"a\.png cannot be read as an image"):
        rows.fingerprint(torch.arange(1))


def test_a_sharded_model_is_not_a_folder_of_images(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {}}))
    assert_refused(tmp_path, "holds a model split into several files")


def test_the_constant_start_of_stylegan2_fits_its_first_layer(tmp_path: Path) -> None:
    nvidia = {**nvidia_tensors(), "synthesis.b4.const": torch.zeros(7, 4, 4)}
    with pytest.raises(
        LoadError,
        match=r"synthesis.b4.const is \(7, 4, 4\), but synthesis.b4.conv1.weight \(5, 5, 3, 3\) takes \(5, 4, 4\)",
    ):
        load_generator(save({"G_ema": nvidia}, tmp_path))
    rosinality = {**rosinality_tensors(), "input.input": torch.zeros(1, 5, 5, 4)}
    with pytest.raises(
        LoadError, match=r"input.input is \(1, 5, 5, 4\), but conv1.conv.weight \(1, 5, 5, 3, 3\) takes \(1, 5, 4, 4\)"
    ) as caught:
        load_generator(save({"g_ema": rosinality}, tmp_path))
    assert "transposed:" not in caught.value.message and "--model" in caught.value.hint


def test_layers_that_do_not_follow_each_other_are_named(tmp_path: Path) -> None:
    path = "synthesis.b8.conv1"
    wide = {
        f"{path}.weight": torch.zeros(4, 9, 3, 3),
        f"{path}.affine.weight": torch.zeros(9, 8),
        f"{path}.affine.bias": torch.zeros(9),
    }
    with pytest.raises(
        LoadError, match=r"synthesis.b8.conv1.weight is \(4, 9, 3, 3\), and its input is \(4, 8, 8\) per sample"
    ):
        load_generator(save({"G_ema": nvidia_tensors() | wide}, tmp_path))
    with pytest.raises(LoadError, match=r"style.3.weight is \(8, 8\), and its input is \(9,\) per sample"):
        load_generator(
            save(
                {"g_ema": rosinality_tensors() | {"style.2.weight": torch.zeros(9, 8), "style.2.bias": torch.zeros(9)}},
                tmp_path,
            )
        )


def test_an_image_archive_with_a_damaged_list(tmp_path: Path) -> None:
    whole = bytearray(zipped({"a.png": b"x", "b.png": b"y"}))
    whole[whole.find(b"PK\x01\x02") + 6] = 0xAD
    (tmp_path / "a.zip").write_bytes(whole)
    with pytest.raises(SourceError, match="cannot be read as a zip file"):
        open_samples(tmp_path / "a.zip")


def test_attention_of_the_wrong_rank(tmp_path: Path) -> None:
    content = torch.load(FIXTURES / "families" / "mimicry_sagan.pth", weights_only=True)
    for spoil in (lambda entry: entry.flatten(), lambda entry: None):
        tensors = dict(content["model_state_dict"])
        name = next(name for name in tensors if name.startswith("attn_block.phi.weight"))
        tensors[name] = spoil(tensors[name])
        with pytest.raises(LoadError):
            load_generator(save({name: entry for name, entry in tensors.items() if entry is not None}, tmp_path))


class Keyed(torch.nn.Linear):
    """An object whose attribute names are not text: impossible in Python, but not in a pickle."""

    def __reduce__(self) -> tuple[object, ...]:
        return Keyed, (2, 3), {**self.__dict__, 7: "x", Keyed: 1}


def test_attributes_without_a_name(tmp_path: Path) -> None:
    (tmp_path / "g.pkl").write_bytes(pickle.dumps({"G": Keyed(2, 3)}))
    assert load_generator(tmp_path / "g.pkl").output.shape == (3,)


@pytest.mark.skipif(not HAS_DIFFUSERS, reason="needs diffusers")
@pytest.mark.filterwarnings("ignore")  # the library's own, at import
@pytest.mark.parametrize(
    "key, value", [("timestep_spacing", "0.weight"), ("prediction_type", 7), ("steps_offset", "x")]
)
def test_settings_of_a_scheduler_that_only_sampling_looks_at(tmp_path: Path, key: str, value: object) -> None:
    shutil.copytree(FIXTURES / "families" / "ddpm", tmp_path / "ddpm")
    plan = tmp_path / "ddpm" / "scheduler" / "scheduler_config.json"
    plan.write_text(json.dumps({**json.loads(plan.read_text()), key: value}))
    with pytest.raises(LoadError, match=r"scheduler_config\.json does not configure DDIM"):
        load_generator(tmp_path / "ddpm")


def test_a_graph_whose_outputs_have_no_possible_size(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("Relu", ["z"], ["x"])
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 8, *more])
        for name, more in (("z", []), ("x", [2**62, 4]))
    ]
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:])
    (tmp_path / "a.onnx").write_bytes(
        onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9
        ).SerializeToString()
    )
    with pytest.raises(GandiagError):
        load_generator(tmp_path / "a.onnx", inspect_only=True)


def test_an_eps_in_the_settings_that_is_not_a_number(tmp_path: Path) -> None:
    """The reported eps is the one that is built."""
    for name in ("pytorch_model.bin", "config.json"):
        shutil.copy(FIXTURES / "families" / "biggan" / name, tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    for eps in ("x", 7, None):
        (tmp_path / "config.json").write_text(json.dumps({**settings, "eps": eps}))
        entry = next(entry for entry in load_generator(tmp_path).assumptions if entry.setting == "bn_eps")
        assert (entry.value, entry.source, entry.origin) == (1e-4, "family", "BigGAN-deep")


def test_an_embedding_with_fewer_rows_than_classes(tmp_path: Path) -> None:
    """A dry run on the meta device looks nothing up; a label beyond the rows raised torch's IndexError."""
    net = torch.nn.Sequential(torch.nn.Embedding(3, 4))
    output = OutputSpec("vector", (4,), None)
    with pytest.raises(ArchitectureMismatch, match=r"0\.weight has 3 rows for 5 classes"):
        verify_forward(net, LatentSpec(2, "normal", (2,)), output, ("index", 5))


@pytest.mark.parametrize("count", [torch.tensor(3), torch.tensor(3j), torch.tensor(float("nan")), torch.zeros(2)])
def test_the_counter_of_an_averaged_model_is_reported_if_valid(tmp_path: Path, count: torch.Tensor) -> None:
    net = calibrated(DCGAN(), normal(12))
    file = save(
        {"n_averaged": count, **{f"module.{name}": entry for name, entry in net.state_dict().items()}}, tmp_path
    )
    reported = any(note.endswith("updated 3 times)") for note in load_generator(file).notes)
    assert reported == (count.dtype == torch.int64)


@pytest.mark.parametrize(
    "make, name",
    [(lambda: {"G_ema": nvidia_tensors("resnet")}, "mapping.fc1.weight"), (lambda: ros_file(), "style.2.weight")],
    ids=["nvidia", "rosinality"],
)
def test_a_mapping_whose_layers_do_not_follow_each_other(
    tmp_path: Path, make: Callable[[], dict[str, Any]], name: str
) -> None:
    """Its styles were computed, to compare with the mean in the file, before the network was checked."""
    content = make()
    state = content.get("G_ema", content.get("g_ema"))
    state[name], state[name.replace("weight", "bias")] = torch.ones(9, 9), torch.ones(9)
    assert_no_architecture(save(content, tmp_path, "G.pt"))


def ros_file() -> dict[str, Any]:
    return {"g_ema": rosinality_tensors(), "latent_avg": torch.zeros(8)}


def assert_no_architecture(file: str) -> None:
    with pytest.raises(LoadError, match=r"no architecture|does not rebuild") as caught:
        load_generator(file)
    assert caught.value.hint


@pytest.mark.parametrize("size", [-11, 0])
def test_weights_that_leave_no_latents(size: int) -> None:
    """A BigGAN-deep with every axis of 24 cut to 1: less than its class embedding takes."""
    with pytest.raises(ArchitectureMismatch, match="it would take latents of shape"):
        verify_forward(torch.nn.Linear(1, 2), LatentSpec(size, "normal"), OutputSpec("vector", (2,)), (None, None))
    with pytest.raises(ArchitectureMismatch, match="it would take latents of size"):
        check_output_shape(torch.nn.Linear(1, 2, device="meta"), size, (2,))


@pytest.mark.skipif(not HAS_DIFFUSERS, reason="needs diffusers")
def test_settings_of_empty_layers_warn_nobody(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(FIXTURES / "families" / "ddpm", tmp_path / "ddpm")
    settings = tmp_path / "ddpm" / "unet" / "config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "block_out_channels": [4, 0]}))
    with warnings.catch_warnings(record=True) as heard, pytest.raises(LoadError, match="do not agree"):
        load_generator(tmp_path / "ddpm")
    assert not [entry for entry in heard if "zero-element" in str(entry.message)]


def test_one_channel_is_not_stretched_to_many(tmp_path: Path) -> None:
    """A weight with one input channel passed the dry run, with one style for all channels, and failed in sampling."""
    state = nvidia_tensors("resnet")
    head = "synthesis.b8.conv0"
    state[f"{head}.weight"] = state[f"{head}.weight"][:, :1].clone()
    state[f"{head}.affine.weight"], state[f"{head}.affine.bias"] = (
        state[f"{head}.affine.weight"][:1].clone(),
        state[f"{head}.affine.bias"][:1].clone(),
    )
    with pytest.raises(LoadError, match=r"synthesis\.b8\.conv0\.weight is .* and its input is"):
        load_generator(save({"G_ema": state}, tmp_path, "G.pt"))
