"""The same images are the same samples, however they are stored, named and ordered."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import TensorDataset

from gandiag.interfaces import OutputSpec
from gandiag.sampling import content_keys
from gandiag.sampling.sources import SampleSet, open_samples
from gandiag.sampling.stream_names import GENERATED_ORDER

Images = npt.NDArray[np.uint8]


def write_folder(folder: Path, images: Images, names: list[str]) -> Path:
    for name, image in zip(names, images, strict=True):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.squeeze()).save(path)
    return folder


def write_zip(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png"), reverse=True):
            archive.write(file, file.name)
    return path


def write_array(path: Path, array: npt.NDArray[np.generic]) -> Path:
    np.save(path, array)
    return path


def write_forms(folder: Path, images: Images) -> Iterator[SampleSet]:
    """The same images (N, H, W, C) in every form, and in other orders and under other names."""
    shuffled = images[np.random.default_rng(1).permutation(len(images))]
    names = [f"{index:03}" for index in range(len(images))]
    yield open_samples(write_folder(folder / "plain", images, names))
    yield open_samples(write_folder(folder / "renamed", images, [f"x{900 - index}" for index in range(len(images))]))
    yield open_samples(write_zip(folder / "images.zip", folder / "plain"))
    yield open_samples(write_array(folder / "last.npy", images))
    yield open_samples(write_array(folder / "first.npy", shuffled.transpose(0, 3, 1, 2)))
    yield open_samples(write_array(folder / "unit.npy", (shuffled / 255).astype(np.float32)))
    yield open_samples(TensorDataset(torch.from_numpy(shuffled).permute(0, 3, 1, 2)))


def collect(samples: SampleSet, output: OutputSpec, limit: int | None, batch_size: int) -> tuple[Tensor, Tensor]:
    batches = list(samples.iter_batches(batch_size, output, limit))
    return torch.cat([batch.indices for batch in batches]), torch.cat([batch.samples for batch in batches])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("limit", [None, 7])
def test_every_form_gives_the_same_batches(channels: int, limit: int | None, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 10, 8, channels), dtype=np.uint8)
    images[7] = images[3]  # equal samples have keys of their own
    output = OutputSpec("image", (channels, 8, 8), (-1.0, 1.0))
    forms = [collect(found, output, limit, size) for size, found in enumerate(write_forms(tmp_path, images), 4)]
    assert len(forms[0][0].unique()) == (limit or 20)
    for number, (keys, samples) in enumerate(forms[1:]):
        assert torch.equal(keys, forms[0][0]), number
        assert torch.allclose(samples, forms[0][1], atol=1e-6, rtol=0), number
        assert number == 4 or torch.equal(samples, forms[0][1]), number  # float32 of x/255, in [-1, 1]


def test_files_stand_for_images_that_take_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other names and a zip still give the same keys."""
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    monkeypatch.setattr(content_keys, "MAX_DECODED_BYTES", 100)
    monkeypatch.setattr(content_keys, "MAX_DATASET_BYTES", 100)
    plain, renamed, zipped, *_, dataset = write_forms(tmp_path, images)
    expected = plain.keys.sort().values
    assert torch.equal(renamed.keys.sort().values, expected) and torch.equal(zipped.keys.sort().values, expected)
    assert len(dataset.keys.unique()) == 9


def test_a_set_that_is_judged_is_chosen_independently() -> None:
    """Copies of the real data are not compared with the very rows that they copy."""
    rows = np.random.default_rng(0).normal(size=(1000, 2))
    real = open_samples(rows)
    fake = SampleSet(open_samples(rows).reader, GENERATED_ORDER)
    shared = set(real.choose(100).tolist()) & set(fake.choose(100).tolist())
    assert len(shared) < 30


def test_one_more_sample_changes_few() -> None:
    rows = np.random.default_rng(0).normal(size=(1001, 2))
    chosen = [set(open_samples(part).choose(100).tolist()) for part in (rows[:1000], rows)]
    assert len(chosen[0] & chosen[1]) >= 99


def test_images_that_differ_by_less_than_eight_bits() -> None:
    images = (0.5 + 1e-4 * np.random.default_rng(0).random((40, 1, 4, 4))).astype(np.float32)
    order = np.random.default_rng(1).permutation(40)
    first, second = open_samples(images), open_samples(images[order])
    assert len(first.keys.unique()) == 40 and torch.equal(first.keys[order], second.keys)


def test_rows_of_a_table(tmp_path: Path) -> None:
    """Text and numbers, in another order; and a table of numbers as an array."""
    lines = [f"{row % 7},{row / 3!r},{'word' if row % 2 else ''}" for row in range(30)]
    (tmp_path / "a.csv").write_text("\n".join(["a,b,c", *lines]))
    (tmp_path / "b.csv").write_text("\n".join(["a,b,c", *reversed(lines)]))
    first, second = (open_samples(tmp_path / name).keys for name in ("a.csv", "b.csv"))
    assert torch.equal(first, second.flip(0)) and len(first.unique()) == 30
    values = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    (tmp_path / "c.csv").write_text("\n".join(["a,b", *(f"{a!s},{b!s}" for a, b in values)]))
    assert torch.equal(open_samples(tmp_path / "c.csv").keys, open_samples(values).keys)
