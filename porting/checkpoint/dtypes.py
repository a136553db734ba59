"""The number types that each format can name, and what NumPy calls them.

NumPy lacks bfloat16 and the 8-bit floats; `ml_dtypes` adds them. A type that neither has
is refused by name, never read as something near it.
"""

import ml_dtypes
import numpy as np

_EXTENDED = (
    "bfloat16",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e4m3b11fnuz",
    "float8_e4m3",
    "float8_e3m4",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
    "float6_e2m3fn",
    "float6_e3m2fn",
    "float4_e2m1fn",
    "int4",
    "uint4",
    "int2",
    "uint2",
)
#: NumPy's own types of numbers.
PLAIN = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)

#: NumPy's and ml_dtypes' own names: what Flax writes, and all that a checkpoint may hold.
BY_NAME: dict[str, np.dtype] = {name: np.dtype(name) for name in PLAIN} | {
    name: np.dtype(getattr(ml_dtypes, name)) for name in _EXTENDED
}

#: safetensors' names. F6_E2M3 and F6_E3M2 are left out: the format packs four values into
#: three bytes and does not say in which order.
SAFETENSORS: dict[str, np.dtype] = {
    "BOOL": BY_NAME["bool"],
    "U8": BY_NAME["uint8"],
    "I8": BY_NAME["int8"],
    "U16": BY_NAME["uint16"],
    "I16": BY_NAME["int16"],
    "F16": BY_NAME["float16"],
    "BF16": BY_NAME["bfloat16"],
    "U32": BY_NAME["uint32"],
    "I32": BY_NAME["int32"],
    "F32": BY_NAME["float32"],
    "U64": BY_NAME["uint64"],
    "I64": BY_NAME["int64"],
    "F64": BY_NAME["float64"],
    "C64": BY_NAME["complex64"],
    "F8_E4M3": BY_NAME["float8_e4m3fn"],
    "F8_E5M2": BY_NAME["float8_e5m2"],
    "F8_E8M0": BY_NAME["float8_e8m0fnu"],
    "F8_E4M3FNUZ": BY_NAME["float8_e4m3fnuz"],
    "F8_E5M2FNUZ": BY_NAME["float8_e5m2fnuz"],
    "F4": BY_NAME["float4_e2m1fn"],
}

#: PyTorch's storage classes (`torch.FloatStorage`).
TORCH_STORAGE: dict[str, np.dtype] = {
    "DoubleStorage": BY_NAME["float64"],
    "FloatStorage": BY_NAME["float32"],
    "HalfStorage": BY_NAME["float16"],
    "BFloat16Storage": BY_NAME["bfloat16"],
    "LongStorage": BY_NAME["int64"],
    "IntStorage": BY_NAME["int32"],
    "ShortStorage": BY_NAME["int16"],
    "CharStorage": BY_NAME["int8"],
    "ByteStorage": BY_NAME["uint8"],
    "BoolStorage": BY_NAME["bool"],
    "ComplexFloatStorage": BY_NAME["complex64"],
    "ComplexDoubleStorage": BY_NAME["complex128"],
    "UntypedStorage": BY_NAME["uint8"],
}

#: PyTorch's dtypes (`torch.float8_e4m3fn`); the names are NumPy's but for these.
TORCH_DTYPE: dict[str, np.dtype] = {
    name: dtype for name, dtype in BY_NAME.items() if not name.startswith(("int4", "int2"))
} | {
    "double": BY_NAME["float64"],
    "float": BY_NAME["float32"],
    "half": BY_NAME["float16"],
    "long": BY_NAME["int64"],
    "int": BY_NAME["int32"],
    "short": BY_NAME["int16"],
}

#: Types whose values do not use all bits of their byte: the smallest and largest byte.
_BYTE_RANGE: dict[str, tuple[type, int, int]] = {
    "bool": (np.uint8, 0, 1),
    "uint4": (np.uint8, 0, 15),
    "uint2": (np.uint8, 0, 3),
    "int4": (np.int8, -8, 15),
    "int2": (np.int8, -2, 3),
    "float4_e2m1fn": (np.uint8, 0, 15),
    "float6_e2m3fn": (np.uint8, 0, 63),
    "float6_e3m2fn": (np.uint8, 0, 63),
}


def stray_byte(array: np.ndarray) -> int | None:
    """A byte of `array` that is no value of its type (a bool of 7), or None.

    >>> stray_byte(np.array([0, 1, 7], np.uint8).view(np.bool_))
    7
    """
    if array.dtype.name not in _BYTE_RANGE or not array.size:
        return None
    kind, low, high = _BYTE_RANGE[array.dtype.name]
    raw: np.ndarray = array.view(kind)
    smallest, largest = int(raw.min()), int(raw.max())
    return smallest if smallest < low else largest if largest > high else None
