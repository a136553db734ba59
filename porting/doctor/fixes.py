"""The line that puts a leaf right, tried before it is shown."""

from __future__ import annotations

import numpy as np

from porting.doctor.bits import canonical, equal, is_float
from porting.doctor.evidence import Evidence
from porting.doctor.steps import Step, run, steps_of
from porting.errors import PortingError
from porting.leaves import CONCAT, ONLY, STACK, Leaf

Steps = tuple[Step, ...]


def right_array(row: Leaf, evidence: Evidence, dtype: np.dtype | None = None) -> np.ndarray:
    """What a leaf should be; as `dtype` where that loses nothing."""
    made = evidence.made(row)
    return made.astype(dtype) if dtype is not None and widens(made, dtype) else made


def widens(array: np.ndarray, dtype: np.dtype) -> bool:
    """Whether `array` as `dtype` holds the same values.

    >>> widens(np.float16([0.1]), np.dtype("float32")), widens(np.float32([0.1]), np.dtype("float16"))
    (True, False)
    """
    if array.dtype == dtype or is_float(array.dtype) != is_float(dtype):
        return False
    if not is_float(dtype) and (array.dtype.kind not in "iu" or dtype.kind not in "iu"):
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        other = array.astype(dtype)
    return equal(canonical(array), canonical(other))


def fix_line(row: Leaf | None, evidence: Evidence, dtype: np.dtype) -> str:
    """An expression of NumPy in `source` that gives the right leaf, or "".

    The calls in it are carried out, and their result is compared with the leaf that the row
    makes, bit for bit, type and shape included.

    >>> from porting.layouts import Rule
    >>> row = Leaf("kernel", ("fc.weight",), Rule("o i -> i o"))
    >>> evidence = Evidence({"fc.weight": np.zeros((5, 3), np.float32)})
    >>> fix_line(row, evidence, np.dtype("float32"))
    'source["fc.weight"].T'
    """
    if row is None:
        return ""
    try:
        joined = evidence.joined(row)
        expected = right_array(row, evidence, dtype)
        steps = steps_of(row.rule, joined.shape)
    except PortingError:
        return ""
    if not _in_numpy(joined.dtype) and evidence.torch.issuperset(row.sources):
        if row.join.name.startswith("weight_norm"):
            return ""  # it rounds at every step, as float32 does not
        steps, joined = _by_float(row, steps, joined)
    if expected.dtype != joined.dtype:
        steps = (*steps, Step("astype", (expected.dtype,)))
    made = run(steps, joined)
    text = _joined_text(row, evidence)
    right = made.dtype == expected.dtype and equal(canonical(made), canonical(expected))
    return text + "".join(map(str, steps)) if right and text else ""


def _by_float(row: Leaf, steps: Steps, joined: np.ndarray) -> tuple[Steps, np.ndarray]:
    """The calls on tensors that NumPy reads as float32; a join that computes is rounded first."""
    moved = row.join in (ONLY, STACK, CONCAT)
    rounded = () if moved else (Step("astype", (joined.dtype,)),)
    return (*rounded, *steps), joined.astype(np.float32) if moved else joined


def _joined_text(row: Leaf, evidence: Evidence) -> str:
    keys = [_array_text(key, evidence) for key in row.sources]
    kind, _, dim = row.join.name.partition(":")
    if kind == "weight_norm":
        magnitude, direction = keys
        rank = len(evidence.shapes[row.sources[1]])
        return _weight_norm_text(magnitude, direction, rank, dim)
    forms = {
        "only": keys[0],
        "stack": f"np.stack([{', '.join(keys)}])",
        "concat": f"np.concatenate([{', '.join(keys)}])",
        "sum": f"({' + '.join(keys)})",
        "one_plus": f"({keys[0]} + 1)",
        "zeros": f"np.zeros(len({keys[0]}), {keys[0]}.dtype)",
    }
    return forms.get(row.join.name, "")


def _array_text(key: str, evidence: Evidence) -> str:
    """A source tensor as an array of NumPy; a narrow one of PyTorch by way of float32."""
    name = f"source[{_quoted(key)}]"
    if key not in evidence.torch:
        return name
    through = "" if _in_numpy(evidence.array(key).dtype) else ".float()"
    return f"{name}{through}.numpy(force=True)"


def _in_numpy(dtype: np.dtype) -> bool:
    """Whether NumPy itself has a type (bfloat16 and the 8-bit floats come with ml_dtypes)."""
    return dtype.kind != "V" and hasattr(np, dtype.name)


def _weight_norm_text(magnitude: str, direction: str, rank: int, dim: str) -> str:
    """`v · (g / ‖v‖)` in NumPy, as the join computes it."""
    axes = tuple(a for a in range(rank) if dim == "None" or a != int(dim) % rank)
    norm = f"np.sqrt(np.sum(np.square({direction}), axis={axes}, keepdims=True))"
    return f"({direction} * ({magnitude}.reshape({norm}.shape) / {norm}))"


def _quoted(key: str) -> str:
    return f'"{key}"' if key.isprintable() and not set(key) & set('"\\') else repr(key)
