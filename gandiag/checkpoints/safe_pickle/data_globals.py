"""Globals of a pickle that describe data rather than code. Torch-free."""

from __future__ import annotations

import re

STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
# Globals that are data rather than code: what torch.save writes for tensors, standard layers, arguments, numpy numbers.
DATA_GLOBALS = re.compile(
    r"torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2|torch\.(cuda\.)?\w+Storage"
    r"|torch\.storage\.(UntypedStorage|TypedStorage|_load_from_bytes)"
    r"|torch\.(Size|device|dtype|bfloat16|float\d+|u?int\d+|bool|complex\d+|float8_\w+|Tensor"
    r"|strided|contiguous_format)"
    r"|torch\.nn\.(parameter\.(Parameter|Buffer)|modules\.[\w.]+|init\.\w+)"
    r"|torch\.serialization\._get_layout|torch\.torch_version\.TorchVersion"
    r"|collections\.(OrderedDict|Counter|defaultdict|deque)|copy_?reg\._reconstructor|copyreg\.__newobj(_ex)?__"
    r"|pathlib\.\w*Path|pathlib\._local\.\w*Path|_codecs\.encode|argparse\.Namespace"
    r"|(builtins|__builtin__)\.(set|frozenset|complex|slice|range|object|int|float|str|list|dict|tuple|bool|bytes)"
    r"|numpy\.(_core|core)\.(multiarray\.(scalar|_reconstruct)|numeric\._frombuffer)"
    r"|numpy\.(ndarray|dtype|float\d+|u?int\d+|bool_)|numpy\.dtypes\.\w+"
)


def is_data_global(name: str) -> bool:
    """Whether a global only describes data (tensors, containers, numbers) rather than code."""
    return DATA_GLOBALS.fullmatch(name) is not None
