"""What the names inside a PyTorch file stand for, as data.

`torch.save` writes a tensor as a call of `torch._utils._rebuild_tensor_v2` on a storage,
an offset, a shape and strides. Here such a call becomes a `TensorRef` with these numbers.
See `torch/_utils.py` and `torch/_tensor.py` (`Tensor._reduce_ex_internal`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from porting.checkpoint.contents import quoted
from porting.checkpoint.dtypes import TORCH_DTYPE, TORCH_STORAGE
from porting.checkpoint.pickles import Global, Unknown
from porting.errors import CheckpointError


@dataclass(frozen=True)
class Storage:
    """A flat run of numbers in the file: its key there, its type, and its length."""

    key: str
    dtype: np.dtype | None
    count: int
    type_name: str
    start: int = 0


@dataclass(frozen=True, eq=False)
class TensorRef:
    """Where a tensor lies in its storage, as the file says it; not yet checked."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any
    dtype: Any = None
    pending: Any = None


@dataclass(frozen=True)
class Unreadable:
    """A tensor that is not a plain array, and what to do about it."""

    reason: str


_UNREADABLE = {
    "_rebuild_qtensor": "is quantized; call `.dequantize()` before saving",
    "_rebuild_sparse_tensor": "is sparse; call `.to_dense()` before saving",
    "_rebuild_sparse_csr_tensor": "is sparse; call `.to_dense()` before saving",
    "_rebuild_nested_tensor": "is a nested tensor; call `.to_padded_tensor(0)` before saving",
    "_rebuild_meta_tensor_no_storage": "is on the meta device and has no values",
}

#: Names of the standard library that stand for plain data. Any other has no place here.
_DATA: dict[str, frozenset[str]] = {
    module: frozenset(names.split())
    for module, names in {
        "builtins": "dict list tuple set frozenset int float bool str bytes bytearray complex object "
        "slice range xrange long unicode type Ellipsis NotImplemented",
        "collections": "OrderedDict defaultdict Counter deque ChainMap UserDict",
        "argparse": "Namespace",
        "types": "SimpleNamespace",
        "pathlib": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
        "datetime": "datetime date time timedelta timezone",
        "decimal": "Decimal",
        "fractions": "Fraction",
        "uuid": "UUID",
        "ipaddress": "IPv4Address IPv6Address",
        "random": "Random",
        "array": "array _array_reconstructor",
        "re": "_compile",
        "signal": "Signals",
        "typing": "Any Union Optional List Dict Tuple Set Callable",
        "copyreg": "_reconstructor",
        "_codecs": "encode",
        "functools": "partial",
    }.items()
}
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg", "pathlib._local": "pathlib"}
_RETIRED = frozenset(
    [
        "__builtin__",
        "copy_reg",
        "cPickle",
        "commands",
        "popen2",
        "imp",
        "pipes",
        "distutils",
        "asyncore",
        "telnetlib",
    ]
)
#: Packages whose functions an attack would use; only the calls listed below are data.
_CLOSED = frozenset(["torch", "numpy", "pip", "setuptools", "pkg_resources"])
_CLOSED_DATA = frozenset(
    {
        ("torch", "device"),
        ("torch.serialization", "_get_layout"),
        ("torch.torch_version", "TorchVersion"),
        ("torch.cuda.amp.grad_scaler", "_refresh_per_optimizer_state"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        *(
            (f"numpy.{core}.multiarray", name)
            for core in ("core", "_core")
            for name in ("_reconstruct", "scalar")
        ),
        *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
        ("numpy.random", "__RandomState_ctor"),
        *(
            ("numpy.random._pickle", f"__{kind}_ctor")
            for kind in ("bit_generator", "generator", "randomstate")
        ),
        ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"),
        ("torch._C", "Generator"),
    }
)


def check_global(name: Global) -> None:
    """Raise if `name` is a function of the standard library: such a file runs code.

    Raises:
        CheckpointError: with the name, and the advice not to load the file elsewhere.
    """
    module = _RENAMED.get(name.module, name.module)
    if name.name in _DATA.get(module, ()):
        return
    package = name.module.split(".")[0]
    if package in sys.stdlib_module_names or package in _RETIRED:
        raise _runs_code(name)


def call(name: Global, arguments: tuple[Any, ...]) -> Any:
    """The data that a call in the pickle stands for; an `Unknown` where it is none.

    Raises:
        CheckpointError: the call is not one that a checkpoint makes.
    """
    known = _CALLS.get((name.module, name.name))
    if known is not None:
        try:
            return known(*arguments)
        except TypeError:
            raise CheckpointError(
                f"its pickle describes a tensor by {quoted(name)} with "
                f"{len(arguments)} values, which is not how PyTorch does it. The file is damaged."
            ) from None
    if name.module == "torch._utils" and name.name.startswith("_rebuild_"):
        return Unreadable(_UNREADABLE.get(name.name, f"is of a special kind ({quoted(name.name)})"))
    closed = name.module.split(".")[0] in _CLOSED
    if closed and (name.module, name.name) not in _CLOSED_DATA:
        raise _runs_code(name)
    return Unknown(name)


def _runs_code(name: Global) -> CheckpointError:
    return CheckpointError(
        f"its pickle asks to run {quoted(name)} when it is loaded, which no checkpoint needs. "
        "Nothing was run. Do not open this file with torch.load; get the weights as safetensors."
    )


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> TensorRef:
    pending = rest[2] if len(rest) > 2 else None  # requires_grad, hooks, metadata
    return TensorRef(storage, offset, shape, strides, pending=pending)


def _tensor_v3(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    grad: Any,
    hooks: Any,
    dtype: Any,
    *rest: Any,
) -> TensorRef:
    return TensorRef(storage, offset, shape, strides, dtype, rest[0] if rest else None)


def _from_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        raise TypeError
    if (function.module, function.name) == ("torch._tensor", "_rebuild_from_type_v2"):
        raise TypeError  # PyTorch never nests it, and nesting would recurse
    return call(function, arguments)


def _ordered_dict(pairs: Any = ()) -> dict[Any, Any] | Unknown:
    table = {}
    for pair in pairs if isinstance(pairs, (list, tuple)) else ():
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or type(pair[0]) is not str:
            return Unknown("collections.OrderedDict")
        table[pair[0]] = pair[1]
    return table


_CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
    ("torch.nn.parameter", "Parameter"): lambda data, *_: data,
    ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
    ("torch", "Size"): lambda sizes=(): sizes,
    ("collections", "OrderedDict"): _ordered_dict,
    ("collections", "defaultdict"): lambda *_: {},
}


def storage(identifier: Any) -> Storage | Unknown:
    """The storage that a persistent id names.

    Args:
        identifier: `("storage", type, key, device, count)`, in old files with a view
            `(key, offset, count)` or None behind it; or `("module", class, …)`.

    Raises:
        CheckpointError: it is neither.
    """
    parts = identifier if isinstance(identifier, tuple) else ()
    if parts[:1] == ("module",) and len(parts) > 1:
        return Unknown(
            parts[1] if isinstance(parts[1], Global) else "module"
        )  # the class of a module, with its source code
    if len(parts) not in (5, 6) or parts[0] != "storage" or not isinstance(parts[1], Global):
        raise CheckpointError(
            "its pickle refers to data in a way that PyTorch does not. Save it again."
        )
    kind, key, count = parts[1], parts[2], parts[4]
    if type(count) is not int or count < 0 or not isinstance(key, str):
        raise CheckpointError("its pickle describes a storage that makes no sense. Save it again.")
    dtype = TORCH_STORAGE.get(kind.name) if kind.module.split(".")[0] == "torch" else None
    view = parts[5] if len(parts) == 6 else None
    start = view[1] if isinstance(view, tuple) and len(view) == 3 else 0
    if type(start) is not int or start < 0:
        raise CheckpointError("its pickle describes a view that makes no sense. Save it again.")
    return Storage(key, dtype, count, str(kind), start)


def torch_dtype(name: Any) -> np.dtype | None:
    """NumPy's type for a `torch.…` name, or None."""
    is_torch = isinstance(name, Global) and name.module == "torch"
    return TORCH_DTYPE.get(name.name) if is_torch else None
