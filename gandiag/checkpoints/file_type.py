"""Detects a file's type by its bytes, never by its suffix. Torch-free.

`detect_file_type(path)` gives the kind; `unsupported_file_error(file_info)` is the error for kinds that no reader
takes, with what to do instead. Nothing is unpickled, imported or decompressed here.
"""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gandiag.errors import LoadError
from gandiag.untrusted.files import open_regular

LEGACY_TORCH_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")  # torch < 1.6, after the two PROTO bytes
WEIGHT_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".pkl")
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
# Protocols 0 and 1 have no header: they start with a global, a mark and what may follow, or a memoized empty container.
_OLD_PICKLE = re.compile(
    rb"c[\w.]+\r?\n[\w.]+\r?\n|\(([dlt]p\d|c[\w.]+\n|i[\w.]+\n|[ISVF][^\n]{0,80}\n)|[}\])]q.|\([dlt]q.|\(c", re.DOTALL
)
# Last parts of the names that torch gives a network's tensors
_WEIGHT_LEAVES = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked", "weight_orig", "weight_g"}
EXECUTABLE_KINDS = {
    "torchscript": "a TorchScript program",
    "pt2": "a torch.export program (.pt2)",
    "torch-package": "a torch.package archive",
}
_TENSORFLOW_PART = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
# A map whose first key is a short text: Flax writes parameters so.
_MSGPACK_MAP = re.compile(
    rb"(?:[\x80-\x8f]|\xde..)[\xa1-\xbf](?:params|batch_stats|model|state|opt|step|ema|\w{1,31})", re.DOTALL
)
_LOCAL_HEADER_BYTES = 30
_MAX_DIRECTORY_BYTES = 8 * 2**20  # of a zip's central directory: enough for a hundred thousand tensors
_MAGIC = {
    b"\x89HDF": "hdf5",
    b"\x1f\x8b": "gzip",
    b"\x93NUMPY": "numpy",
    b"\x89PNG": "image",
    b"\xff\xd8\xff": "image",
    b"GIF8": "image",
}
_EXPORT_HINT = (
    "let its own code write samples (np.save('samples.npy', images), shape (N, C, H, W) or (N, D)) and audit that "
    "file, or export the generator to ONNX (tf2onnx, jax2tf) and audit that"
)
# kind -> (what the file is, what to do), as format strings of name, size, detail and folder
UNSUPPORTED_KINDS = {
    "lfs": (
        "is a Git LFS pointer ({size} bytes), not weights: the real file{detail} was never downloaded",
        'run "git lfs pull", then try again',
    ),
    "html": (
        "is a web page, not weights: the download failed or requires a login",
        "download the file again, and check its first line before auditing it",
    ),
    "json": (
        "is JSON text, not weights{detail}",
        "download the file again; a server's error message may have been saved in its place",
    ),
    "text": ("is a text file, not weights", "pass the checkpoint itself (.pt, .pth, .safetensors)"),
    "empty": ("is empty (0 bytes)", "copy or save it again"),
    "truncated": (
        "ends early at {size} bytes{detail}: it was cut short; nothing was loaded",
        "copy it again and compare the sizes",
    ),
    "compressed": (
        "holds compressed entries ({detail}), which torch never writes: malformed or hostile",
        "save it again with torch.save",
    ),
    "malformed": ("is a malformed archive: {detail}", "save it again with torch.save"),
    "aotinductor": (
        "is an AOTInductor package: native code for one machine",
        "audit the state dict instead: torch.save(model.state_dict(), ...)",
    ),
    "tar": (
        "is a tar archive (written by torch before 0.1.10, or a packed folder)",
        "unpack it, or load and save it again with a current version of torch",
    ),
    "gzip": ("is gzip-compressed", "decompress it first: gunzip -k {name}"),
    "hdf5": ("is an HDF5 file, as Keras saves weights", _EXPORT_HINT),
    "keras": ("is a Keras model, which is TensorFlow's, not PyTorch's", _EXPORT_HINT),
    "saved-model": ("is a TensorFlow SavedModel", _EXPORT_HINT),
    "tf-checkpoint": ("is part of a TensorFlow checkpoint", _EXPORT_HINT),
    "flax-pickle": ("holds Flax (JAX) parameters", _EXPORT_HINT),
    "msgpack": ("holds Flax (JAX) parameters as msgpack", _EXPORT_HINT),
    "orbax": ("is an Orbax checkpoint of JAX arrays", _EXPORT_HINT),
    "numpy": ("is a numpy array: samples, not weights", "pass a checkpoint, or audit the samples themselves as .npz"),
    "joblib": (
        "is a joblib file, whose arrays stand between the parts of its pickle",
        "load it where it was made and save the arrays by name: np.savez('weights.npz', **joblib.load('{name}'))",
    ),
    "image": ("is an image, not weights", "pass the checkpoint that generated it"),
    "zip": ("is a zip archive, not a checkpoint{detail}", "unpack it and pass the checkpoint inside"),
    "unknown": (
        "is not a checkpoint format that gandiag knows (it starts with the bytes {detail})",
        "pass a .pt, .pth or .safetensors file",
    ),
}


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file and its type. `detail` completes the message if the file is refused."""

    path: Path
    kind: str
    size: int
    detail: str = ""

    @property
    def name(self) -> str:
        return self.path.name


def detect_file_type(path: str | Path) -> FileInfo:
    """Detect a file's type. LoadError if it is missing, a folder, or cannot be opened."""
    file = Path(path)
    if file.is_dir():
        kind = detect_folder_kind({entry.name for entry in file.iterdir()})
        if kind:
            raise unsupported_file_error(FileInfo(file, kind, 0))
        problem = "an empty folder" if next(file.iterdir(), None) is None else "a folder without a checkpoint in it"
        raise LoadError(f"{path} is {problem}", "pass a checkpoint, or the folder that holds it")
    if not file.exists():
        raise LoadError(f"{path} does not exist", "check the path")
    if not file.is_file():
        raise LoadError(f"{path} is not a regular file", "pass a checkpoint")
    try:
        size = file.stat().st_size
        with open_regular(file) as stream:
            head = stream.read(1024)
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {error.strerror}", "check its permissions") from None
    kind, detail = _detect_kind(file, head, size)
    return FileInfo(file, kind, size, detail)


def unsupported_file_error(file_info: FileInfo) -> LoadError:
    """The error for a file that no reader takes."""
    description, hint = UNSUPPORTED_KINDS[file_info.kind]
    if file_info.kind == "json" and file_info.name in ("config.json", "model_index.json"):
        description, hint = "describes a network and holds no weights", "pass its folder: {folder}"
    fields = {
        "name": file_info.name,
        "size": file_info.size,
        "detail": file_info.detail,
        "folder": file_info.path.parent,
    }
    return LoadError(f"{file_info.name} {description.format(**fields)}", hint.format(**fields))


def trust_required_error(file_info: FileInfo, sha256: str) -> LoadError:
    """The error for a program, which cannot be loaded without running its code."""
    return LoadError(
        f"{file_info.name} is {EXECUTABLE_KINDS[file_info.kind]}: loading it runs code from the file",
        f"audit the state dict instead, or, if you made this file or trust its author: --trust{format_sha256(sha256)}",
    )


def format_sha256(sha256: str) -> str:
    """ " (sha256 3f2a…)", or "" if the file was not hashed."""
    return f" (sha256 {sha256[:12]}…)" if sha256 else ""


def are_weight_names(names: Iterable[str]) -> bool:
    """Whether arrays of these names are a network's: most end as torch's do ("main.0.weight"), two at least."""
    leaves = [name.removesuffix(".npy").rsplit(".", 1)[-1] for name in names]
    found = [leaf for leaf in leaves if leaf in _WEIGHT_LEAVES]
    return len(found) >= 2 and 2 * len(found) > len(leaves) and "weight" in {leaf.partition("_")[0] for leaf in found}


def detect_folder_kind(names: set[str]) -> str:
    """The kind of another framework's checkpoint folder, by the names in it; "" for others."""
    if "saved_model.pb" in names or "saved_model.pbtxt" in names:
        return "saved-model"
    if names & {"manifest.ocdbt", "_CHECKPOINT_METADATA", "_METADATA"}:
        return "orbax"
    return (
        "tf-checkpoint" if any(name.endswith((".index", ".meta")) for name in names) and "checkpoint" in names else ""
    )


def _detect_kind(file: Path, head: bytes, size: int) -> tuple[str, str]:
    """(kind, detail)."""
    if size == 0:
        return "empty", ""
    if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
        return _detect_zip_kind(file, size)
    if head.startswith(b"version https://git-lfs"):
        return "lfs", _parse_lfs_size(head)
    if _is_safetensors(head):  # before pickles: a header of 1,408 bytes starts as a pickle of protocol 5 does
        return _check_safetensors(head, size)
    if b"joblib.numpy_pickle" in head or (file.suffix == ".joblib" and head[:1] == b"x"):  # zlib, its default
        return "joblib", ""
    if head[:1] == b"\x80" and len(head) > 2 and head[1] <= 5:
        return ("torch-legacy" if head[2:].startswith(LEGACY_TORCH_MAGIC) else "pickle"), ""
    if _TENSORFLOW_PART.search(file.name):
        return "tf-checkpoint", ""
    if _MSGPACK_MAP.match(head):
        return "msgpack", ""
    if _OLD_PICKLE.match(head):
        return "pickle", ""
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind, ""
    if head[257:262] == b"ustar":
        return "tar", ""
    return _detect_text_kind(head)


def _detect_text_kind(head: bytes) -> tuple[str, str]:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<"):
        return "html", ""
    if text[:1] in (b"{", b"["):
        return "json", f' (it begins with "{_to_printable_ascii(text[:40])}")'
    if head[:1] == b"\x08" and _looks_like_onnx(head):
        return ("saved-model" if _looks_like_saved_model(head) else "onnx"), ""
    if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head):
        return "text", ""
    return "unknown", head[:4].hex(" ")


def _looks_like_onnx(head: bytes) -> bool:
    # ModelProto: field 1 (ir_version, a small varint), then a length-delimited 2 (producer), 7 (graph) or 8 (opset).
    return len(head) > 3 and head[1] < 0x80 and head[2] in (0x12, 0x1A, 0x22, 0x3A, 0x42)


def _looks_like_saved_model(head: bytes) -> bool:
    # SavedModel: field 1 is the version 1, then length-delimited graphs, each of which starts with a message (0x0a);
    # ONNX has the producer's name there.
    if head[1] != 1 or head[2] != 0x12:
        return False
    start = next((index for index in range(3, min(len(head), 13)) if head[index] < 0x80), None)
    return start is not None and head[start + 1 : start + 2] == b"\x0a"


def _parse_lfs_size(head: bytes) -> str:
    for line in head.splitlines():
        if line.startswith(b"size ") and line[5:].strip().isdigit():
            return f" of {int(line[5:])} bytes"
    return ""


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 9 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") < 1 << 40


def _check_safetensors(head: bytes, size: int) -> tuple[str, str]:
    header = int.from_bytes(head[:8], "little")
    return ("truncated", f" (its header alone is {header} bytes)") if 8 + header > size else ("safetensors", "")


# zip archives


def _detect_zip_kind(file: Path, size: int) -> tuple[str, str]:
    if (directory := _directory_bytes(file)) > _MAX_DIRECTORY_BYTES:
        return "malformed", f"its central directory alone has {directory} bytes"
    try:
        entries = list_zip_entries(file)
    except zipfile.BadZipFile:
        return "truncated", " (the zip directory at its end is missing or damaged)"
    kind, detail = _archive_kind([entry.filename for entry in entries])
    if kind in ("torch-zip", "torchscript"):
        return _check_archive(entries, kind, size)
    return kind, detail


def list_zip_entries(path: Path) -> list[zipfile.ZipInfo]:
    """Entries of a zip. BadZipFile if its directory is damaged, or so long that the list alone would exhaust memory."""
    if (directory := _directory_bytes(path)) > _MAX_DIRECTORY_BYTES:
        raise zipfile.BadZipFile(f"its central directory alone has {directory} bytes")
    try:
        with open_regular(path) as stream, zipfile.ZipFile(stream) as archive:
            return archive.infolist()
    except Exception as error:
        # A damaged directory surfaces as BadZipFile, UnicodeDecodeError, NotImplementedError, struct.error …
        raise zipfile.BadZipFile(f"its central directory is damaged ({type(error).__name__})") from None


def _directory_bytes(file: Path) -> int:
    """Size of the zip's central directory as zipfile itself will read it; 0 without a directory."""
    with open_regular(file) as stream:
        try:
            record = zipfile._EndRecData(stream)  # type: ignore[attr-defined]  # another parser could be misled
        except (OSError, ValueError, struct.error, zipfile.BadZipFile):
            return 0
    return 0 if record is None else int(record[zipfile._ECD_SIZE])  # type: ignore[attr-defined]


def _archive_kind(names: list[str]) -> tuple[str, str]:
    basenames = {name.rsplit("/", 1)[-1] for name in names}
    if "extern_modules" in basenames:
        return "torch-package", ""
    if any("aotinductor/" in name for name in names):
        return "aotinductor", ""
    if "archive_format" in basenames or "serialized_exported_program.json" in basenames:
        return "pt2", ""
    if "constants.pkl" in basenames:
        return "torchscript", ""
    if "data.pkl" in basenames:
        return "torch-zip", ""
    if all(name.endswith(".npy") for name in names) and names:
        return ("numpy-weights" if are_weight_names(names) else "numpy"), ""
    if "model.weights.h5" in basenames:
        return "keras", ""
    weights = [name for name in names if Path(name).suffix in WEIGHT_SUFFIXES][:3]
    return "zip", f" (it holds {', '.join(map(_printable_name, weights))})" if weights else ""


def _check_archive(entries: list[zipfile.ZipInfo], kind: str, size: int) -> tuple[str, str]:
    """Check for what torch never writes: compressed entries, strange or equal names, entries that share bytes."""
    compressed = [entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if compressed and kind == "torch-zip":
        worst = max(compressed, key=lambda entry: entry.file_size)
        name = _printable_name(worst.filename)
        return "compressed", f"{name}: {worst.compress_size} bytes that claim {worst.file_size}"
    names = [entry.orig_filename for entry in entries]
    if len({name.casefold() for name in names}) != len(names):
        return "malformed", "two entries have the same name"
    if any(name.startswith("/") or ".." in name.split("/") for name in names):
        return "malformed", "an entry's name points outside the archive"
    if any("\0" in name or "\\" in name for name in names):
        return "malformed", "an entry's name holds a zero byte or a backslash"
    total = sum(entry.file_size for entry in entries)
    if total > size and kind == "torch-zip":
        return "malformed", f"its entries claim {total} bytes and the file has {size}"
    if len({name.split("/")[0] for name in names}) > 1:
        return "malformed", "its entries are not in one folder"
    return (kind, "") if _are_apart(entries, size) else ("malformed", "its entries share bytes, or lie outside of it")


def _are_apart(entries: list[zipfile.ZipInfo], size: int) -> bool:
    """Whether entries lie one after another in the file, from its first byte."""
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    end = 0
    for index, entry in enumerate(ordered):
        if entry.header_offset < end or (index == 0 and entry.header_offset != 0):
            return False
        end = entry.header_offset + _LOCAL_HEADER_BYTES + len(entry.orig_filename) + entry.compress_size
    return end <= size


def _printable_name(name: str) -> str:
    return _to_printable_ascii(name.encode("utf-8", "replace")[:60])


def _to_printable_ascii(raw: bytes) -> str:
    """Bytes of the file as text that is safe to show."""
    return "".join(chr(byte) if 32 <= byte < 127 and byte != 0x22 else "?" for byte in raw)
