"""A pickle read as data: nothing is imported, looked up, built or called.

`pickletools.genops` splits the pickle into opcodes; a closed list of them is carried out
on plain dicts, lists and tuples. A GLOBAL stays a name. What a pickle asks to call goes to
`torch_calls`, which knows a few names as descriptions of tensors and treats every other
as an unknown object. Opcodes that no checkpoint needs (INST, OBJ, EXT, DUP, …) are refused.

The meaning of each opcode is that of CPython's `Lib/pickletools.py`.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from porting import limits
from porting.checkpoint.contents import quoted
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

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def frozen_set(self) -> None:
        self.since_mark()
        self.push(Unknown("frozenset"))

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError
        items = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        self.push(items)

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


def _key(key: Any) -> Any:
    """`key`, if it is safe to hash; a stand-in for anything else.

    A deeply nested tuple overflows the C stack when it is hashed, and large integers can
    be chosen to collide.
    """
    if key is None or isinstance(key, (str, bool)):
        return key
    return key if isinstance(key, int) and abs(key) < 2**63 else Unknown("key")


def _integer(value: int) -> int:
    if abs(value) >= 2**128:
        raise OverflowError
    return value


_PUSH = (
    *("NONE", "NEWTRUE", "NEWFALSE", "BINFLOAT", "FLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_Step = Callable[[_Machine, Any], None]

_OPCODES: dict[str, _Step] = {
    **{name: lambda m, a: m.push(a) for name in _PUSH},
    **{name: (lambda value: lambda m, a: m.push(value))(v) for name, v in _CONSTANTS.items()},
    **{
        name: lambda m, a: m.push(_integer(a))
        for name in ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4")
    },
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "MARK": _Machine.mark,
    "EMPTY_TUPLE": lambda m, a: m.push(()),
    "EMPTY_LIST": lambda m, a: m.push([]),
    "EMPTY_DICT": lambda m, a: m.push({}),
    "EMPTY_SET": lambda m, a: m.push(Unknown("set")),
    "FROZENSET": lambda m, a: m.frozen_set(),
    "ADDITEMS": lambda m, a: m.extend(m.since_mark()),
    "TUPLE": lambda m, a: m.push(tuple(m.since_mark())),
    "TUPLE1": lambda m, a: m.tuple_of(1),
    "TUPLE2": lambda m, a: m.tuple_of(2),
    "TUPLE3": lambda m, a: m.tuple_of(3),
    "LIST": lambda m, a: m.push(m.since_mark()),
    "DICT": lambda m, a: m.table(m.since_mark()),
    "APPEND": lambda m, a: m.extend([m.stack.pop()]),
    "APPENDS": lambda m, a: m.extend(m.since_mark()),
    "SETITEM": lambda m, a: m.set_item(),
    "SETITEMS": lambda m, a: m.set_items(m.since_mark()),
    "GLOBAL": lambda m, a: m.name(*a.split(" ", 1)),
    "STACK_GLOBAL": lambda m, a: m.stack_name(),
    "REDUCE": lambda m, a: m.reduce(),
    "NEWOBJ": lambda m, a: m.new_object(),
    "BUILD": lambda m, a: m.build(),
    "BINPERSID": lambda m, a: m.push(m.hooks.persistent(m.stack.pop())),
    **{name: _Machine.put for name in ("PUT", "BINPUT", "LONG_BINPUT")},
    "MEMOIZE": lambda m, a: m.put(len(m.memo)),
    **{name: lambda m, a: m.push(m.memo[a]) for name in ("GET", "BINGET", "LONG_BINGET")},
}


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
    machine = _Machine(hooks)
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(data)):
            if count >= limits.PICKLE_OPCODES:
                raise LimitError(
                    f"its pickle has more than {limits.PICKLE_OPCODES:,} opcodes, the "
                    "limit. Save the state_dict alone, as safetensors."
                )
            if opcode.name == "STOP":
                return machine.stack.pop(), (position or 0) + 1
            step = _OPCODES.get(opcode.name)
            if step is None:
                raise CheckpointError(
                    f"its pickle uses the opcode {opcode.name}, which no checkpoint "
                    "needs. Save the state_dict with torch.save, or as safetensors."
                )
            step(machine, argument)
    except PortingError as error:
        raise type(error)(f"{file}: {error}") from None
    except (ValueError, TypeError, LookupError, OverflowError, struct.error, Warning) as error:
        raise _damaged(file, error) from None
    raise _damaged(file, None)


def _damaged(file: str, error: Exception | None) -> CheckpointError:
    detail = f" ({quoted(str(error), 100)})" if error is not None and str(error) else ""
    return CheckpointError(
        f"{file}: its pickle is damaged or cut short{detail}. Download or save the file again."
    )
