"""Checks keys before they are hashed and compared, both of which their author could make slow. Torch-free."""

from __future__ import annotations

from typing import Any

from gandiag.checkpoints.safe_pickle.budget import ParseBudget
from gandiag.checkpoints.safe_pickle.nodes import ArrayNode, CorruptPickleError, DictNode
from gandiag.errors import LoadError

_MAX_ENTRIES, _MAX_DEPTH = 16, 2  # of a tuple that is a key


def check_hashable(key: Any, budget: ParseBudget, depth: int = 0) -> Any:
    """Return the key if it is cheap to hash: text, numbers, nodes, short shallow tuples. They are counted."""
    if isinstance(key, tuple):
        if depth >= _MAX_DEPTH or len(key) > _MAX_ENTRIES:
            raise LoadError("the pickle in this file uses a deeply nested key: malformed or hostile", "do not load it")
        for entry in key:
            check_hashable(entry, budget, depth + 1)
    elif isinstance(key, (list, dict, set, frozenset, ArrayNode)) and not isinstance(key, DictNode):
        raise CorruptPickleError("an unhashable key")
    if depth == 0:
        budget.use_key(key)
    return key
