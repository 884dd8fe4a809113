"""Folders and zips of images, damaged: bytes, PNG chunks, names, links, nesting and formats."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from functools import cache
from typing import Any

import numpy as np
from fuzz_damage import change_directory, scramble
from PIL import Image

Rng = np.random.Generator
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MODES = ("RGB", "L", "P", "RGBA", "LA", "1", "I;16", "I", "F", "CMYK", "YCbCr")
NAMES = (
    "a.png",
    "b.jpg",
    "c.jpeg",
    "d.webp",
    "e.gif",
    "f.bmp",
    "g.tif",
    "h.ppm",
    "x/i.png",
    "x/y/j.png",
    "é\u202e.png",
)
NAMES = (*NAMES, ".hidden.png", "n" * 200 + ".png", "__MACOSX/o.png", "\x1b[31m.png", "new\nline.png", "z.txt")
CHUNKS = (
    b"iCCP",
    b"zTXt",
    b"iTXt",
    b"tEXt",
    b"eXIf",
    b"acTL",
    b"fcTL",
    b"fdAT",
    b"PLTE",
    b"tRNS",
    b"gAMA",
    b"IDAT",
    b"IHDR",
)


def pick(rng: Rng, options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


@cache
def seeds() -> tuple[bytes, ...]:
    """Images of every format and mode that can be written."""
    found = []
    values = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    for mode in MODES:
        base = Image.fromarray(values)
        image = base.convert("L").convert(mode) if mode.startswith(("I", "F")) else base.convert(mode)
        for kind in FORMATS:
            stream = io.BytesIO()
            try:
                image.save(stream, kind)
            except (OSError, ValueError, KeyError):
                continue
            found.append(stream.getvalue())
    stream = io.BytesIO()
    frames = [Image.fromarray(np.full((8, 8), shade, dtype=np.uint8)) for shade in range(0, 250, 50)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return (*found, stream.getvalue())


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def change_png(whole: bytes, rng: Rng) -> bytes:
    """A chunk added, dropped, moved or altered, with right checksums."""
    parts, at = [], 8
    while at + 12 <= len(whole):
        (length,) = struct.unpack(">I", whole[at : at + 4])
        parts.append((whole[at + 4 : at + 8], whole[at + 8 : at + 8 + length]))
        at += 12 + length
    if not parts:
        return scramble(whole, rng)
    place, choice = int(rng.integers(len(parts))), int(rng.integers(5))
    junk = [
        b"",
        bytes(40),
        b"x\0\0" + zlib.compress(bytes(3_000_000)),
        b"k" * 200,
        rng.bytes(30),
        struct.pack(">II", 2**31, 0),
    ]
    if choice == 0:
        parts.insert(place, (pick(rng, CHUNKS), pick(rng, junk)))
    elif choice == 1:
        del parts[place]
    elif choice == 2:
        parts.insert(int(rng.integers(len(parts))), parts[place])
    elif choice == 3:
        parts[place] = (pick(rng, CHUNKS), parts[place][1])
    else:
        parts[place] = (parts[place][0], scramble(parts[place][1] or b"\0", rng))
    return whole[:8] + b"".join(chunk(name, content) for name, content in parts)


def change_image(whole: bytes, rng: Rng) -> bytes:
    if whole.startswith(b"\x89PNG") and rng.random() < 0.7:
        return change_png(whole, rng)
    if rng.random() < 0.1:
        return bytes(
            pick(rng, [b"", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", b"<svg/>", b"%PDF-1.4", b"8BPS\0\1"])
        )
    return scramble(whole, rng)


def image_case(rng: Rng) -> tuple[dict[str, bytes], list[str], dict[str, str]]:
    """Files, command line and links of one case."""
    same = pick(rng, seeds()) if rng.random() < 0.5 else None
    count = int(rng.integers(2, 6))
    chosen = [str(name) for name in rng.choice(NAMES, count, replace=False)]
    images = {name: same or pick(rng, seeds()) for name in chosen}
    for name in chosen[: int(rng.integers(0, 3))]:
        images[name] = change_image(images[name], rng)
    target, files, links = "d", {f"d/{name}": content for name, content in images.items()}, {}
    if rng.random() < 0.3:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in images.items():
                archive.writestr(pick(rng, ["", "../", "/", "a/"]) + name, content)
        whole = stream.getvalue()
        target, files = "d.zip", {"d.zip": change_directory(whole, rng) if rng.random() < 0.5 else whole}
    elif rng.random() < 0.2:
        links = {
            pick(rng, ["d/l.png", "d/x", "d/m.gif"]): pick(
                rng, ["/dev/zero", "..", ".", "/etc/hostname", "missing", "l.png"]
            )
        }
    argv = ["audit", target, "--dry-run", "-n", "2"]
    other = pick(
        rng, [[], [], ["--real", target], ["--group-by", "folder"], ["--group-by", "stem"], ["--device", "cpu"]]
    )
    return files, [*argv, *other], links
