"""Real data and sets of samples: what is read, how it is converted, and what is rejected."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "fixtures"))

import hostile_tricks

from gandiag.errors import SourceError
from gandiag.interfaces import OutputSpec
from gandiag.sampling.arrays import open_array
from gandiag.sampling.latents import hash_indices
from gandiag.sampling.preprocessing import center_crop_resize, infer_value_range, match_channels, match_image_format
from gandiag.sampling.sources import contains_samples, open_samples

RGB = OutputSpec("image", (3, 16, 16), (-1.0, 1.0))
GREY = OutputSpec("image", (1, 16, 16), (-1.0, 1.0))


def pictures(n, size=(16, 16), mode="RGB", seed=0):
    draw = np.random.default_rng(seed)
    shape = (size[1], size[0]) + ((3,) if mode == "RGB" else ())
    return [
        Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8), mode if mode == "RGB" else "L") for _ in range(n)
    ]


@pytest.fixture
def folder(tmp_path):
    """Two classes, one of them nested, with clutter around the images."""
    root = tmp_path / "photos"
    for name, images in (("cats/a", pictures(3)), ("dogs", pictures(4, seed=1))):
        (root / name).mkdir(parents=True)
        for index, image in enumerate(images):
            image.save(root / name / f"{index}.PNG")
    (root / "readme.txt").write_text("no image")
    (root / ".DS_Store.png").write_bytes(b"junk")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "x.png").write_bytes(b"junk")
    return root


def joined(samples, fit=None, limit=None, batch_size=3):
    """Samples, positions and labels, by position."""
    batches = list(samples.iter_batches(batch_size, fit, limit))
    positions = samples.choose(limit)
    assert torch.equal(torch.cat([batch.indices for batch in batches]), samples.keys[positions])
    order = torch.argsort(positions)
    labels = None if batches[0].labels is None else torch.cat([batch.labels for batch in batches])[order]
    return torch.cat([batch.samples for batch in batches])[order], positions[order], labels


def test_a_folder_becomes_samples_labels_and_names(folder):
    found = open_samples(folder)
    samples, indices, labels = joined(found)
    assert found.output == RGB and found.n == 7 and found.class_names == ("cats", "dogs") and found.name == str(folder)
    assert indices.tolist() == list(range(7)) and labels.tolist() == [0] * 3 + [1] * 4
    expected = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in pictures(3)]) / 127.5 - 1
    torch.testing.assert_close(samples[:3], expected)


def test_a_zip_of_the_folder_gives_the_same(folder, tmp_path):
    path = tmp_path / "no_suffix"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.PNG")):
            archive.write(file, "wrapper/" + str(file.relative_to(folder)))
        archive.writestr("__MACOSX/wrapper/dogs/._0.png", b"junk")
    zipped, plain = open_samples(path), open_samples(folder)
    assert zipped.class_names == plain.class_names
    for a, b in zip(joined(zipped), joined(plain), strict=True):
        assert torch.equal(a, b)


def test_batches_and_limits_are_subsets_of_the_whole(folder):
    found = open_samples(folder)
    whole = joined(found)[0]
    for limit in (2, 5, 7, 100):
        samples, indices, _ = joined(found, limit=limit, batch_size=2)
        assert torch.equal(samples, whole[indices]) and len(indices) == min(limit, 7)
    many = open_samples(np.random.default_rng(0).normal(size=(1000, 2)))
    smaller, larger = (set(many.choose(limit).tolist()) for limit in (50, 80))
    assert smaller < larger and smaller == set(torch.argsort(hash_indices(many.keys))[:50].tolist())


def test_fingerprints_follow_contents(folder):
    found = open_samples(folder)
    before, part = found.fingerprint(), found.fingerprint(3)
    assert open_samples(str(folder)).fingerprint() == before != part
    victim = folder / "dogs" / "2.PNG"
    pictures(1, seed=9)[0].save(victim)
    assert open_samples(folder).fingerprint() != before
    array = np.zeros((5, 3), np.float32)
    other = array.copy()
    other[4, 2] = 1e-6
    assert (
        open_samples(array).fingerprint()
        != open_samples(other).fingerprint()
        == open_samples(torch.from_numpy(other)).fingerprint()
    )


def test_mixed_sizes_need_a_generator(folder):
    pictures(1, size=(24, 20))[0].save(folder / "dogs" / "odd.png")
    found = open_samples(folder)
    with pytest.raises(SourceError, match=r"several sizes: .*0.PNG is 16x16, dogs/odd.png is 24x20"):
        _ = found.output
    with pytest.raises(SourceError):
        next(found.iter_batches(2))
    assert joined(found, RGB)[0].shape == (8, 3, 16, 16)
    assert "several sizes" in found.assumptions(RGB)[0].value


def test_an_unreadable_image_is_named(folder):
    (folder / "cats" / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    with pytest.raises(SourceError, match=r"cats/a/broken\.png cannot be read as an image"):
        open_samples(folder)


def test_a_truncated_image_is_named_when_read(folder):
    path = folder / "dogs" / "1.PNG"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(SourceError, match=r"dogs/1\.PNG cannot be read"):
        joined(open_samples(folder))


def test_a_link_loop_and_an_empty_folder(tmp_path, folder):
    (folder / "cats" / "loop").symlink_to(folder)
    assert open_samples(folder).n == 7
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="contains no images"):
        open_samples(tmp_path / "empty")


@pytest.mark.parametrize(
    "content, said",
    [
        (b"some words\nand more\n", "contains no readable samples"),
        (b"", "contains no readable samples"),
        (b"\x93NUMPY broken", "cannot be read"),
        (b"PK\x03\x04 broken", "contains no readable samples"),
    ],
)
def test_other_files_are_refused(tmp_path, content, said):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=said):
        open_samples(path)
    assert contains_samples(path) == content.startswith(b"\x93NUMPY")


def test_missing_files_single_images_and_checkpoints(tmp_path):
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        open_samples(tmp_path / "nowhere")
    pictures(1)[0].save(tmp_path / "one.png")
    with pytest.raises(SourceError, match="is a single image"):
        open_samples(tmp_path / "one.png")
    torch.save({"a": torch.zeros(2)}, tmp_path / "g.pt")
    with pytest.raises(SourceError, match="PyTorch file"):
        open_samples(tmp_path / "g.pt")
    assert not contains_samples(tmp_path / "g.pt") and not contains_samples(tmp_path / "nowhere")


def test_too_few_samples():
    with pytest.raises(SourceError, match="contains 1 sample"):
        open_samples(np.zeros((1, 4)))
    with pytest.raises(SourceError):
        open_samples(np.zeros((0, 4)))


# arrays


def test_all_layouts_of_the_same_images_agree():
    nchw = np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16), dtype=np.uint8)
    nhwc = nchw.transpose(0, 2, 3, 1)
    unit, signed = (nchw / 255).astype(np.float32), (nchw / 127.5 - 1).astype(np.float32)
    expected = torch.from_numpy(nchw).float() / 127.5 - 1
    for array in (
        nchw,
        nhwc,
        unit,
        signed,
        nchw.astype(np.float64),
        nchw.astype(np.int32),
        torch.from_numpy(nchw),
        torch.from_numpy(signed).bfloat16(),
    ):
        found = open_samples(array)
        assert found.output == RGB
        torch.testing.assert_close(
            joined(found)[0], expected, atol=1e-2 if getattr(array, "dtype", 0) == torch.bfloat16 else 1e-5, rtol=0
        )


def test_npy_and_npz_with_labels(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16), dtype=np.uint8)
    labels = np.array([0, 1, 2, 0, 1, 2])
    np.save(tmp_path / "x.npy", images)
    np.savez(tmp_path / "x.npz", samples=images, labels=labels)
    plain, labelled = open_samples(tmp_path / "x.npy"), open_samples(tmp_path / "x.npz")
    assert plain.output == labelled.output == GREY and plain.labels is None
    assert torch.equal(joined(plain)[0], joined(labelled)[0]) and joined(labelled)[2].tolist() == labels.tolist()


def test_several_arrays_need_a_key(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, real=np.zeros((5, 2)), fake=np.ones((5, 2)), labels=np.arange(5))
    with pytest.raises(SourceError, match=r"2 arrays: real \(5, 2\), fake") as refused:
        open_samples(path)
    assert "--npz-key" in refused.value.hint and contains_samples(path)
    found = open_samples(path, npz_key="fake")
    assert joined(found)[0].eq(1).all() and found.labels.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(SourceError, match="no array called 'fak'") as refused:
        open_samples(path, npz_key="fak")
    assert "fake" in refused.value.hint


def test_pickled_arrays_are_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    np.save(tmp_path / "evil.npy", np.array([Evil(), Evil()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "evil.npz", a=np.array([Evil(), Evil()], dtype=object))
    for name in ("evil.npy", "evil.npz"):
        with pytest.raises(SourceError):
            open_samples(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_vectors_are_left_as_they_are():
    x = np.random.default_rng(0).normal(50, 9, (20, 5))
    found = open_samples(x, output=OutputSpec("vector", (5,)))
    assert found.output == OutputSpec("vector", (5,))
    torch.testing.assert_close(joined(found, OutputSpec("vector", (5,)))[0], torch.from_numpy(x).float())
    with pytest.raises(
        SourceError, match=r"vector samples of shape \(5,\), but the generator makes vector samples of shape \(6,\)"
    ):
        open_samples(x, output=OutputSpec("vector", (6,)))
    with pytest.raises(SourceError, match="generator makes image"):
        open_samples(x, output=RGB)


def test_digits_three_ways():
    """scikit-learn's digits run from 0 to 16, which is no common range: rejected rather than darkened sixteenfold."""
    digits = load_digits()
    with pytest.raises(SourceError, match="run from 0 to 16"):
        open_samples(digits.images)
    images = (digits.images / 16).astype(np.float32)
    small = OutputSpec("image", (1, 8, 8), (0.0, 1.0))
    assert torch.equal(joined(open_samples(images), small, batch_size=500)[0][:, 0], torch.from_numpy(images))
    flat = open_samples((digits.data / 16).astype(np.float32), output=small)
    assert flat.kind == "vector" and torch.equal(
        joined(flat, small, batch_size=500)[0], joined(open_samples(images), small, batch_size=500)[0]
    )
    as_vectors = joined(open_samples(images), OutputSpec("vector", (64,), (-1.0, 1.0)), batch_size=500)[0]
    torch.testing.assert_close(as_vectors, torch.from_numpy(images).flatten(1) * 2 - 1)


def test_series_only_where_said():
    x = np.random.default_rng(0).normal(size=(10, 32, 2)).astype(np.float32)
    found = open_samples(x, kind="series")
    assert found.output == OutputSpec("series", (2, 32)) and torch.equal(
        joined(found)[0], torch.from_numpy(x).transpose(1, 2)
    )
    signed = torch.from_numpy(np.clip(x, -1, 1))  # read as grey images until a generator of series comes along
    for shape, expected in (((2, 32), signed.transpose(1, 2)), ((32, 2), signed), ((64,), signed.flatten(1))):
        assert torch.equal(joined(open_samples(signed), OutputSpec("series", shape))[0], expected)
    assert open_samples(x[:, :, 0], kind="series").output == OutputSpec("series", (1, 32))


@pytest.mark.parametrize(
    "array, said",
    [
        (np.array(["a", "b"]), "contains <U1"),
        (np.zeros(5), r"shape \(5,\)"),
        (np.zeros((4, 5, 6, 7)), "not a set of images"),
        (np.zeros((4, 0)), "shape"),
        (np.full((4, 3, 8, 8), 7.5), "run from 7.5"),
        (np.zeros((3, 2), complex), "complex"),
    ],
)
def test_arrays_that_are_no_samples(array, said):
    with pytest.raises(SourceError, match=said):
        open_samples(array)


def test_nan_in_real_data_is_found():
    x = np.zeros((10, 3))
    x[7, 1] = np.nan
    with pytest.raises(SourceError, match="sample 7 contains NaN"):
        joined(open_samples(x))


# datasets


class Pairs(Dataset):
    def __init__(self, wrap):
        self.wrap, self.images = wrap, pictures(6)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.wrap(self.images[index], index)


def as_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


@pytest.mark.parametrize(
    "wrap",
    [
        lambda image, index: image,
        lambda image, index: (image, index % 2),
        lambda image, index: as_tensor(image),
        lambda image, index: (as_tensor(image) * 2 - 1, torch.tensor(index % 2)),
        lambda image, index: np.array(image),
        lambda image, index: {"image": image, "label": index % 2},
    ],
)
def test_datasets_of_every_kind_of_item(wrap):
    found = open_samples(Pairs(wrap))
    samples, _, labels = joined(found)
    expected = torch.stack([as_tensor(image) for image in pictures(6)]) * 2 - 1
    torch.testing.assert_close(samples, expected, atol=1e-5, rtol=0)
    assert found.output == RGB and (labels is None or labels.tolist() == [0, 1] * 3)


def test_tensor_datasets_vectors_and_loaders():
    x, y = torch.randn(8, 3), torch.arange(8) % 2
    for source in (TensorDataset(x, y), DataLoader(TensorDataset(x, y), batch_size=4)):
        found = open_samples(source)
        samples, _, labels = joined(found)
        assert (
            found.output == OutputSpec("vector", (3,))
            and torch.equal(samples, x)
            and torch.equal(labels, y)
            and torch.equal(found.labels, y)
        )


def test_augmentation_is_fixed_by_the_index_and_the_global_generator_stays():
    found = open_samples(Pairs(lambda image, index: (as_tensor(image) * torch.rand(1), 0)))
    before = torch.get_rng_state()
    a, b = joined(found, batch_size=2)[0], joined(found, batch_size=5)[0]
    assert (
        torch.equal(a, b) and torch.equal(before, torch.get_rng_state()) and found.fingerprint() == found.fingerprint()
    )


def test_datasets_that_cannot_be_read():
    class Endless(IterableDataset):
        def __iter__(self):
            yield torch.zeros(3)

    def fails(image, index):
        raise OSError("disk gone")

    for source, said in (
        (Endless(), "no length"),
        (Pairs(fails), "item 0 .* disk gone"),
        (Pairs(lambda image, index: "text"), "type str"),
        (42, "read from a int"),
        ([], "no samples"),
    ):
        with pytest.raises(SourceError, match=said):
            open_samples(source)


# fitting


def test_grey_and_rgb_are_made_equal(tmp_path):
    root = tmp_path / "grey"
    root.mkdir()
    for index, image in enumerate(pictures(4, mode="L")):
        image.save(root / f"{index}.png")
    found = open_samples(root)
    assert found.output == GREY and found.class_names is None
    grey, colour = joined(found, GREY)[0], joined(found, RGB)[0]
    assert torch.equal(colour, grey.expand(-1, 3, -1, -1)) and "grayscale" in found.assumptions(RGB)[0].value
    torch.testing.assert_close(match_channels((colour + 1) / 2, 1), (grey + 1) / 2)


def test_modes_of_image_files(tmp_path):
    """Palette, alpha, 8-bit and 16-bit files give the same image."""
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    files = {
        "l.png": Image.fromarray(ramp),
        "rgba.png": Image.fromarray(ramp).convert("RGBA"),
        "p.png": Image.fromarray(ramp).convert("P"),
        "i16.png": Image.fromarray(ramp.astype(np.uint16) * 257),
    }
    for name, image in files.items():
        image.save(tmp_path / name)
    samples, _, _ = joined(open_samples(tmp_path), OutputSpec("image", (3, 16, 16), (0.0, 1.0)))
    torch.testing.assert_close(samples, (torch.from_numpy(ramp) / 255).expand(4, 3, 16, 16), atol=1e-6, rtol=0)


def test_resizing_keeps_constants_crops_the_centre_and_does_not_alias():
    assert torch.allclose(center_crop_resize(torch.full((1, 1, 50, 30), 0.3), 16, 16), torch.tensor(0.3), atol=1e-6)
    wide = torch.zeros(1, 1, 16, 48)
    wide[..., 16:32] = 1
    assert torch.allclose(center_crop_resize(wide, 16, 16), torch.ones(1, 1, 16, 16))
    checker = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    reduced = center_crop_resize(checker[None, None].float(), 16, 16)
    assert float((reduced - 0.5)[..., 2:-2, 2:-2].abs().max()) < 0.05  # without antialiasing: 0 or 1


def test_large_reductions_match_the_slow_way():
    """Blocks first, the last 3x bicubic: within 2 % of antialiased bicubic on a real photograph, and not shifted."""
    photo = torch.from_numpy(load_sample_images().images[0].copy()).permute(2, 0, 1)[None, :, :420, :420].float() / 255
    slow = torch.nn.functional.interpolate(photo, size=(16, 16), mode="bicubic", antialias=True).clamp(0, 1)
    assert float((center_crop_resize(photo, 16, 16) - slow).abs().mean()) < 0.02
    mirrored = center_crop_resize(photo.flip(3), 16, 16).flip(3)
    torch.testing.assert_close(mirrored, center_crop_resize(photo, 16, 16), atol=1e-4, rtol=0)


def test_the_generators_range_and_assumptions():
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8))
    made = match_image_format(images, OutputSpec("image", (3, 16, 16), (0.0, 255.0)))
    assert float(made.min()) >= 0 and 100 < float(made.max()) <= 255
    assumed = open_samples(images).assumptions(OutputSpec("image", (1, 16, 16)))
    assert {entry.setting: entry.value for entry in assumed} == {
        "range_of_the_samples": (0.0, 255.0),
        "real_images": "32x32",
        "real_channels": "converted to grayscale",
        "real_range": (-1.0, 1.0),
    }
    assert "center-cropped and resized to 16x16" in {entry.note for entry in assumed}


@pytest.mark.parametrize(
    "low, high, dtype, expected",
    [
        (0, 255, np.uint8, (0, 255)),
        (0, 1, np.uint8, (0, 1)),
        (0, 1, np.float32, (0, 1)),
        (-1, 1, np.float32, (-1, 1)),
        (-0.4, 0.4, np.float32, (-1, 1)),
        (0, 254.0, np.float32, (0, 255)),
        (0, 16.0, np.float32, None),
        (-2.1, 2.6, np.float32, None),
        (0, 1.3, np.float32, None),
    ],
)
def test_ranges_are_known_or_refused(low, high, dtype, expected):
    assert infer_value_range(low, high, np.dtype(dtype)) == expected


def test_ambiguous_axes_follow_the_library():
    both = np.zeros((4, 3, 9, 3), np.uint8)
    assert open_array(both, "x").shape == (3, 3, 9) and open_array(torch.from_numpy(both), "x").shape == (3, 9, 3)


def test_images_that_cost_far_more_than_they_are(tmp_path):
    """A progressive JPEG of many scans takes a pass for each; a TIFF's tile is in memory as a whole."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
    for name, options in (("a.jpg", {"progressive": True}), ("b.tif", {"compression": "tiff_lzw"})):
        image.save(tmp_path / name, **options)
    assert open_samples(tmp_path).n == 2
    for name, content, reason in (
        ("c.jpg", hostile_tricks.many_scans(64, 101), "101 scans"),
        ("c.tif", hostile_tricks.tiled(40_000), "tiles claim 40,000 x 40,000"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SourceError, match=rf"{name} cannot be read as an image.*{reason}"):
            open_samples(tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / "c.tif").write_bytes(hostile_tricks.tiled(2048))
    assert open_samples(tmp_path).n == 3
