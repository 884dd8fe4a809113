"""Opens images that somebody else may have made: known formats by content, first frame, size checked before decoding.

Pillow's full list of formats starts other programs (EPS starts Ghostscript) and reads far more than images need.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from PIL import Image

from gandiag.errors import SourceError

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_PIXELS = 50_000_000  # of one image: 200 MB while it is decoded
_MIN_DENSE_PIXELS = 4_000_000  # smaller images may be as empty as they like
# Pixels that one byte of a file can hold. A blank image reaches about 2,000 in PNG and 500 in JPEG.
_MAX_PIXELS_PER_BYTE = 5_000
_MAX_SCANS = 100  # of a progressive JPEG, each a pass over the whole image; encoders write about 10
_MAX_TILE_VALUES = 1 << 24  # of a TIFF, in memory as a whole even where the image is smaller
_TILE_TAGS, _SAMPLES_TAG = (322, 323), 277  # width and height; values of a pixel


@contextmanager
def open_image(stream: IO[bytes], size: int) -> Iterator[Image.Image]:
    """The image in a stream of `size` bytes, not decoded yet. ValueError for other formats and for claimed sizes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(stream, formats=IMAGE_FORMATS) as image:
            pixels = image.width * image.height
            if pixels > MAX_PIXELS:
                raise ValueError(f"it has {image.width:,} x {image.height:,} pixels, more than {MAX_PIXELS:,}")
            if pixels > max(_MIN_DENSE_PIXELS, _MAX_PIXELS_PER_BYTE * size):
                raise ValueError(f"it claims {image.width:,} x {image.height:,} pixels in {size:,} bytes")
            _require_few_scans(image, stream)
            _require_small_tiles(image)
            yield image


def _require_few_scans(image: Image.Image, stream: IO[bytes]) -> None:
    if not image.info.get("progressive"):
        return
    place = stream.tell()
    stream.seek(0)
    count = stream.read().count(b"\xff\xda")
    stream.seek(place)
    if count > _MAX_SCANS:
        raise ValueError(f"it is drawn in {count:,} scans, more than {_MAX_SCANS}")


def _require_small_tiles(image: Image.Image) -> None:
    tags = getattr(image, "tag_v2", {})
    sizes = [tags.get(tag) for tag in (*_TILE_TAGS, _SAMPLES_TAG)]
    numbers = [size for size in sizes if isinstance(size, int)]
    if any(tag in tags for tag in _TILE_TAGS) and math.prod(numbers) > _MAX_TILE_VALUES:
        raise ValueError(f"its tiles claim {' x '.join(f'{size:,}' for size in numbers)} values")


@contextmanager
def report_unreadable(name: str) -> Iterator[None]:
    """Turn any exception of an image decoder into a SourceError that names the file."""
    try:
        yield
    except SourceError:
        raise
    except Exception as problem:
        reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
        if "cannot identify" in reason:
            reason = f"it is none of {', '.join(IMAGE_FORMATS)}"
        raise SourceError(
            f"{name} cannot be read as an image: {reason or type(problem).__name__}",
            "remove it, or leave out what cannot be read with --skip-broken",
        ) from problem
