"""A pickle read as data: nothing is imported, looked up, built or called.

`opcodes` says what each opcode and its argument are; a closed list of them is carried out
on plain dicts, lists and tuples. A GLOBAL stays a name. What a pickle asks to call goes to
`torch_calls`, which knows a few names as descriptions of tensors and treats every other
as an unknown object. Opcodes that no checkpoint needs (INST, OBJ, EXT, DUP, …) are refused.

The meaning of each opcode is that of CPython's `Lib/pickletools.py`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from porting import limits
from porting.checkpoint.contents import quoted
from porting.checkpoint.opcodes import OPCODES, STOP, Reader
from porting.errors import CheckpointError, LimitError, PortingError


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle refers to, never resolved."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Unknown:
    """An object of a class that this reader does not know.

    Attributes:
        name: the class.
        items: what a pickle stored in it as in a dict.
        is_module: whether its attributes are those of a `torch.nn.Module`.
    """

    name: str | Global
    items: dict[Any, Any] | None = None
    is_module: bool = False


@dataclass(frozen=True)
class Hooks:
    """What the format around the pickle decides.

    Attributes:
        call: the value for a callable's name and its arguments.
        check: raises for a name that has no place in a checkpoint.
        persistent: the value for a persistent id (a storage).
    """

    call: Callable[[Global, tuple[Any, ...]], Any]
    check: Callable[[Global], None]
    persistent: Callable[[Any], Any]


class _Machine:
    """The stack of one pickle and the opcodes that may move it."""

    def __init__(self, hooks: Hooks) -> None:
        self.hooks = hooks
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.names = 0

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def frozen_set(self) -> None:
        self.since_mark()
        self.push(Unknown("frozenset"))

    def tuple_of(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        if len(items) < count:
            raise IndexError
        self.stack[-count:] = [items]

    def set_items(self, pairs: list[Any]) -> None:
        if len(pairs) % 2:
            raise IndexError
        target = self.stack[-1]
        if isinstance(target, Unknown):
            target.items = target.items or {}
            target = target.items
        if not isinstance(target, dict):
            raise TypeError
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[_key(key)] = value

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        target = self.stack[-1]
        if type(target) is dict:
            target[_key(key)] = value
        else:
            self.set_items([key, value])

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, (Unknown, dict)):
            raise TypeError

    def table(self, pairs: list[Any]) -> None:
        self.push({})
        self.set_items(pairs)

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError
        self.names += 1
        if self.names > limits.PICKLE_NAMES:
            raise LimitError(
                f"its pickle names more than {limits.PICKLE_NAMES:,} classes, the limit. Save the "
                "state_dict alone, as safetensors."
            )
        found = Global(module, name)
        self.hooks.check(found)
        self.push(found)

    def stack_name(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.name(module, name)

    def reduce(self) -> None:
        arguments, callee = self.stack.pop(), self.stack.pop()
        if not isinstance(arguments, tuple) or not isinstance(callee, Global):
            raise TypeError
        self.push(self.hooks.call(callee, arguments))

    def new_object(self) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(arguments, tuple) or not isinstance(kind, (Global, Unknown)):
            raise TypeError
        self.push(Unknown(kind.name if isinstance(kind, Unknown) else kind))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Unknown) and isinstance(state, dict):
            target.is_module |= "_parameters" in state or "_modules" in state

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])


def _key(key: Any) -> Any:
    """`key`, if it is safe to hash; a stand-in for anything else.

    A deeply nested tuple overflows the C stack when it is hashed, and large integers can
    be chosen to collide.
    """
    if type(key) is str or key is None or isinstance(key, bool):
        return key
    return key if isinstance(key, int) and abs(key) < 2**63 else Unknown("key")


_PUSH = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    *("BINFLOAT", "FLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)

#: Opcodes with an argument: what they do with it.
_WITH: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(_PUSH, _Machine.push),
    **dict.fromkeys(("PROTO", "FRAME"), lambda m, a: None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "GLOBAL": lambda m, a: m.name(*a),
}
#: Opcodes without one.
_ALONE: dict[str, Callable[[_Machine], None]] = {
    "NONE": lambda m: m.push(None),
    "NEWTRUE": lambda m: m.push(True),
    "NEWFALSE": lambda m: m.push(False),
    "MARK": _Machine.mark,
    "EMPTY_TUPLE": lambda m: m.push(()),
    "EMPTY_LIST": lambda m: m.push([]),
    "EMPTY_DICT": lambda m: m.push({}),
    "EMPTY_SET": lambda m: m.push(Unknown("set")),
    "FROZENSET": _Machine.frozen_set,
    "ADDITEMS": lambda m: m.extend(m.since_mark()),
    "TUPLE": lambda m: m.push(tuple(m.since_mark())),
    "TUPLE1": lambda m: m.tuple_of(1),
    "TUPLE2": lambda m: m.tuple_of(2),
    "TUPLE3": lambda m: m.tuple_of(3),
    "LIST": lambda m: m.push(m.since_mark()),
    "DICT": lambda m: m.table(m.since_mark()),
    "APPEND": lambda m: m.extend([m.stack.pop()]),
    "APPENDS": lambda m: m.extend(m.since_mark()),
    "SETITEM": _Machine.set_item,
    "SETITEMS": lambda m: m.set_items(m.since_mark()),
    "STACK_GLOBAL": _Machine.stack_name,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.new_object,
    "BUILD": _Machine.build,
    "BINPERSID": lambda m: m.push(m.hooks.persistent(m.stack.pop())),
    "MEMOIZE": lambda m: m.put(len(m.memo)),
}
#: By code: the reader of an opcode's argument, if it has one, and what it does, if accepted.
_STEPS: list[tuple[Reader | None, Callable[..., None] | None]] = [
    (reader, (_WITH if reader else _ALONE).get(name))
    for name, reader in (OPCODES.get(code, ("", None)) for code in range(256))
]


def read_pickle(file: str, data: bytes, hooks: Hooks) -> tuple[Any, int]:
    """The value that the pickle at the start of `data` describes, and where it ends.

    Args:
        file: the file's name, for messages.
        data: the pickle, and possibly more behind it.
        hooks: what names, calls and persistent ids mean.

    Returns:
        dicts, lists, tuples, numbers and texts; `Global`, `Unknown`, and what the hooks
        made; and the number of bytes that were read.

    Raises:
        CheckpointError: the pickle is damaged, or uses an opcode outside the list.
        LimitError: it has too many opcodes.
    """
    try:
        return _run(data, _Machine(hooks))
    except PortingError as error:
        raise type(error)(f"{file}: {error}") from None
    except (ValueError, TypeError, LookupError, OverflowError, struct.error, Warning) as error:
        raise _damaged(file, error) from None


def _run(data: bytes, machine: _Machine) -> tuple[Any, int]:
    position, steps = 0, _STEPS
    for _ in range(limits.PICKLE_OPCODES):
        code = data[position]
        position += 1
        read, step = steps[code]
        if step is None:
            if code == STOP:
                return machine.stack.pop(), position
            raise _unknown(code, position - 1)
        if read is None:
            step(machine)
        else:
            argument, position = read(data, position)
            step(machine, argument)
    raise LimitError(
        f"its pickle has more than {limits.PICKLE_OPCODES:,} opcodes, the limit. Save the "
        "state_dict alone, as safetensors."
    )


def _unknown(code: int, position: int) -> Exception:
    if code not in OPCODES:
        return ValueError(f"at position {position}, byte {code} is no opcode")
    return CheckpointError(
        f"its pickle uses the opcode {OPCODES[code][0]}, which no checkpoint needs. Save the "
        "state_dict with torch.save, or as safetensors."
    )


def _damaged(file: str, error: Exception) -> CheckpointError:
    detail = f" ({quoted(str(error), 100)})" if str(error) else ""
    return CheckpointError(
        f"{file}: its pickle is damaged or cut short{detail}. Download or save the file again."
    )
