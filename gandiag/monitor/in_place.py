"""Samples a module that cannot be copied in place, and puts back everything of it that can be put back.

Restored: parameters' flags, buffers, train flags, attributes of every submodule (numbers, tensors, lists, tables, sets)
and the state of random generators that it owns. Not restored: what lies outside the module, such as a counter that a
hook closes over, and objects inside of lists.
"""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gandiag.checkpoints.module_adapter import frozen_copy
from gandiag.errors import LoadError
from gandiag.sampling.module_state import preserve_module_state

_OWN_TABLES = ("_parameters", "_buffers", "_modules")


def copy_or_none(module: nn.Module) -> nn.Module | None:
    """A frozen copy; None where the module cannot be copied, or its copy shares weights with it."""
    try:
        return frozen_copy(module)
    except LoadError:
        return None


@contextmanager
def restored(module: nn.Module) -> Iterator[nn.Module]:
    """The module itself, in eval mode; afterwards as it was."""
    with ExitStack() as stack:
        for part in module.modules():
            stack.callback(_attribute_restorer(part))
        grads = [(parameter, parameter.requires_grad, parameter.grad) for parameter in module.parameters()]
        stack.enter_context(preserve_module_state(module))
        try:
            yield module
        finally:
            for parameter, needs_grad, grad in grads:
                parameter.requires_grad_(needs_grad)
                parameter.grad = grad


def _attribute_restorer(part: nn.Module) -> Callable[[], None]:
    """A function that puts the attributes of one submodule back."""
    attributes = {name: value for name, value in vars(part).items() if name not in _OWN_TABLES}
    contents = [put for value in attributes.values() if (put := _content_restorer(value)) is not None]

    def restore() -> None:
        own = vars(part)
        for name in [name for name in own if name not in attributes and name not in _OWN_TABLES]:
            del own[name]
        own.update(attributes)
        for put_back in contents:
            put_back()

    return restore


def _content_restorer(value: Any) -> Callable[[], Any] | None:
    """A function that puts the content of a mutable value back; None for values that do not change, or are unknown."""
    if isinstance(value, Tensor) and value.is_leaf:
        saved = value.detach().clone()
        return lambda: None if torch.equal(value, saved) else value.detach().copy_(saved)
    if isinstance(value, (list, deque)):
        entries = list(value)
        return lambda: (value.clear(), value.extend(entries))
    if isinstance(value, (dict, set)):
        table = copy.copy(value)
        return lambda: (value.clear(), value.update(table))
    if isinstance(value, np.ndarray):
        array = value.copy()
        return lambda: np.copyto(value, array)
    return _generator_restorer(value)


def _generator_restorer(value: Any) -> Callable[[], Any] | None:
    """The same for random generators."""
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return lambda: value.set_state(state)
    if isinstance(value, random.Random):
        python_state = value.getstate()
        return lambda: value.setstate(python_state)
    if isinstance(value, np.random.Generator):
        bits, numpy_state = value.bit_generator, copy.deepcopy(value.bit_generator.state)
        return lambda: setattr(bits, "state", numpy_state)
    return None
