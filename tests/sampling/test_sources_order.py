"""The same images in the same order are the same samples, however they are stored."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gandiag.interfaces import OutputSpec
from gandiag.sampling.sources import open_samples


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("limit", [None, 7])
def test_a_folder_a_zip_and_an_array_give_the_same_batches(channels: int, limit: int | None, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 10, 8, channels), dtype=np.uint8)
    (tmp_path / "folder").mkdir()
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for index, image in enumerate(images):
            path = tmp_path / "folder" / f"{index:03}.png"
            Image.fromarray(image.squeeze()).save(path)
            archive.write(path, path.name)
    np.save(tmp_path / "images.npy", images)
    output = OutputSpec("image", (channels, 8, 8), (-1.0, 1.0))
    found = []
    for name, batch_size in (("folder", 4), ("images.zip", 20), ("images.npy", 7)):
        batches = list(open_samples(tmp_path / name).iter_batches(batch_size, output, limit))
        found.append([torch.cat([getattr(batch, part) for batch in batches]) for part in ("indices", "samples")])
    for indices, samples in found[1:]:
        assert torch.equal(indices, found[0][0]) and torch.equal(samples, found[0][1])
