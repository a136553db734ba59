"""Files that are wrong in their structure, where a random change would only break the syntax.

Each maker draws one file: a zip whose two directories disagree, a pickle of random opcodes, a
header of odd values, msgpack of nested extensions, an index of odd names.
"""

import json
import pickle
import pickletools
import random
import struct
from collections.abc import Callable

from tests import checkpoint_files as make

Maker = Callable[[random.Random], bytes]
NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]  # fmt: skip
_ODD = [*NUMBERS, -1, 1.5, 1e400, True, None, "", "a", [], {}, [[]], [0, 24], "F32", 3, 24, 48]


def _places(data: bytes, mark: bytes, layout: str) -> list[int]:
    """Where every record that begins with `mark` lies."""
    size, places, at = struct.calcsize(layout), [], data.find(mark)
    while 0 <= at <= len(data) - size:
        places.append(at)
        at = data.find(mark, at + 1)
    return places


def zip_directory(seed: bytes) -> Maker:
    """A field of one record of a zip file set to another number; both directories are there."""
    records = {b"PK\1\2": "<4s6H3L5H2L", b"PK\3\4": "<4s5H3L2H", b"PK\5\6": "<4s4H2LH"}
    places = {mark: _places(seed, mark, layout) for mark, layout in records.items()}

    def build(draw: random.Random) -> bytes:
        data = bytearray(seed)
        for _ in range(draw.choice((1, 1, 2, 4))):
            mark = draw.choice(list(records))
            at = draw.choice(places[mark])
            values = list(struct.unpack_from(records[mark], data, at))
            chosen = draw.randrange(1, len(values))
            wide = "L" in records[mark] and values[chosen] > 0xFFFF
            near = [values[chosen] + step for step in (-1, 1, -30, 30)]
            number = draw.choice([*near, *NUMBERS, len(data), at])
            values[chosen] = number % (2**32 if wide else 2**16)
            struct.pack_into(records[mark], data, at, *values)
        return bytes(data)

    return build


def _opcode(draw: random.Random) -> bytes:
    """One opcode with an argument that fits it."""
    op = draw.choice(pickletools.opcodes)
    code = op.code.encode("latin-1")
    number = draw.choice(NUMBERS)
    if op.arg is None:
        return code
    kind = op.arg.name
    text = draw.choice([b"a", b"storage", b"0", b"w", "ü".encode(), b"x" * 600, b"\xff"])
    if kind.endswith("nl") or "nl_" in kind:
        line = draw.choice([b"1", b"'a'", b"01", b"-9", b"9" * 50, text, b"torch", b"1L", b"nan"])
        return code + line + b"\n" + (b"FloatStorage\n" if "pair" in kind else b"")
    width = int(kind[-1]) if kind[-1].isdigit() else 0
    if kind.startswith(("uint", "int", "float")):
        return code + draw.choice([number, 0, 1, 2]).to_bytes(16, "little")[:width]
    return code + draw.choice([len(text)] * 4 + [number]).to_bytes(16, "little")[:width] + text


def pickle_program(draw: random.Random) -> bytes:
    """A right pickle of tensors with random opcodes put in, or nothing but random opcodes."""
    refs = {"w": make.tensor(), "b": make.tensor((6,), (1,))}
    data = bytearray(make.pickled(refs))
    ends = [at for _, _, at in pickletools.genops(bytes(data)) if at]
    if draw.random() < 0.3:
        data, ends = bytearray(b"\x80\x02"), [2]
    for _ in range(draw.choice((1, 1, 1, 2, 5, 40))):
        at = draw.choice(ends)
        data[at:at] = _opcode(draw) if draw.random() < 0.8 else bytes(data[ends[0] : at])[:200]
        ends = [min(end, len(data)) for end in ends] + [at]
    return make.torch_zip(bytes(data) + pickle.STOP, {"0": bytes(24)})


def safetensors_rows(draw: random.Random) -> bytes:
    """Rows of a header with odd values in odd places."""
    rows: dict[str, object] = {}
    for name in draw.sample(
        ["a", "b", "c", "__metadata__", "", "é", "a" * 600], draw.randrange(1, 5)
    ):
        row: dict[str, object] = dict(make.row([3, 2], 0, 24))
        for field in draw.sample(list(row), draw.choice((0, 0, 0, 1, 2))):
            row[field] = draw.choice(
                [*_ODD, [draw.choice(_ODD)], [draw.choice(_ODD) for _ in "ab"]]
            )
        rows[name] = draw.choice([row] * 9 + [draw.choice(_ODD)])
    text = json.dumps(rows)
    if draw.random() < 0.2:
        text = draw.choice(
            [text[:-1] + "," + text[1:], text * 2, "[" + text + "]", " " * 600 + text]
        )
    return make.safetensors(text.encode(), bytes(draw.choice((0, 24, 48))))


def npy_header(draw: random.Random) -> bytes:
    """An `.npy` file of any version with a header of odd parts."""
    descr = draw.choice(
        [*["<f4"] * 9, ">f4", "|b1", "|O", "<U3", "|V2", "<M8[s]", "f4", "<f16", "=i8", "é"]
    )
    shape = draw.choice(
        [*["3, 2", "6,"] * 9, "", "0, 9" * 9, "2*3,", "-6,", "1" * 30 + ",", "6L,", "[6]", "²,"]
    )
    order = draw.choice([*["True", "False"] * 4, "1", "None", "__import__('os')"])
    parts = [f"'descr': '{descr}'", f"'fortran_order': {order}", f"'shape': ({shape})"]
    if draw.random() < 0.2:
        draw.shuffle(parts)
    text = (
        "{" + ", ".join(parts) + draw.choice([*[", }", "}"] * 5, ", 'x': 1}", "", "}" * 9000])
    ).encode()
    version = draw.choice([*[1, 2, 3] * 4, 0, 255])
    length = draw.choice([len(text)] * 5 + [draw.choice(NUMBERS)]).to_bytes(16, "little")
    head = b"\x93NUMPY" + bytes([version, 0]) + length[: 2 if version < 2 else 4]
    return head + text + bytes(draw.choice((0, 3, 12, 24, 24, 24)))


def msgpack_tree(draw: random.Random, depth: int = 0) -> bytes:
    """Tables, lists and extensions in one another, now and then with a wrong length."""
    kind = draw.choice(["table", "table", "list", "array", "array", "ext", "number", "chunks"])
    if depth == 0:
        kind = "table"
    size = draw.choice([1, 1, 1, 2, 3])
    said = size if draw.random() < 0.99 else draw.choice([0, 7, 15])
    if depth < 6 and kind in ("table", "list"):
        names = [
            draw.choice(
                [
                    b"\xa1a",
                    b"\xa1b",
                    b"\xa3a/b",
                    *[b"\xa1c", b"\xa1d", b"\xa1e"] * 4,
                    b"\x01",
                    b"\xc0",
                    b"\xa1\xff",
                ]
            )
            for _ in range(size)
        ]
        items = [msgpack_tree(draw, depth + 1) for _ in range(size)]
        if kind == "list":
            return bytes([0x90 | said]) + b"".join(items)
        return bytes([0x80 | said]) + b"".join(
            n + item for n, item in zip(names, items, strict=True)
        )
    if kind == "chunks" and depth < 6:
        shape = b"\x81\xa10" + draw.choice([b"\x06", b"\x0c", b"\xff", b"\xcf" + b"\x7f" * 8])
        parts = b"\x82\xa10" + _array(draw) + b"\xa1" + draw.choice([b"1", b"7"]) + _array(draw)
        mark = b"\xb9__msgpack_chunked_array__\xc3"
        return b"\x83" + mark + b"\xa5shape" + shape + b"\xa6chunks" + parts
    if kind == "ext":
        body = _array(draw)
        code = draw.choice([0, 1, 2, 3, 255])
        return (
            b"\xc9"
            + draw.choice([len(body), 2**32 - 1, 0]).to_bytes(4, "big")
            + bytes([code])
            + body
        )
    return (
        _array(draw)
        if kind in ("array", "chunks")
        else draw.choice([b"\xc0", b"\x05", b"\xcb" + bytes(8)])
    )


def _array(draw: random.Random) -> bytes:
    shape = draw.choice(
        [
            *[b"\x92\x03\x02", b"\x91\x06"] * 6,
            b"\x91\x06",
            b"\x90",
            b"\x91\xff",
            b"\x81\x01\x02",
            b"\xdc\x00\x40" + b"\1" * 64,
        ]
    )
    kind = draw.choice([*[b"float32"] * 12, b"bfloat16", b"object", b"V8", b"bool", b"int4"])
    return make.msgpack_array(shape, kind, bytes(draw.choice([24] * 12 + [4, 12, 6, 0])))


def index_names(draw: random.Random) -> bytes:
    """An index of shards with names that lie elsewhere, or are no names."""
    names = [*["one.safetensors"] * 20, "../one.safetensors", "/etc/passwd", "index_names.bin", "", ".", "..",
             "one.safetensors\0", "a/one.safetensors", "con.bin", "one.bin", 7, None, ["one.safetensors"]]  # fmt: skip
    keys = [*["a"] * 20, "b", "", "é", "a" * 600]
    places: object = {draw.choice(keys): draw.choice(names) for _ in range(draw.randrange(0, 5))}
    if draw.random() < 0.2:
        places = draw.choice(_ODD)
    return json.dumps({"metadata": draw.choice(_ODD), "weight_map": places}).encode()


def makers() -> dict[str, Maker]:
    """The makers by name."""
    seeds = make.seeds()
    return {
        "zip directory": zip_directory(seeds["torch zip"]),
        "npz directory": zip_directory(seeds["npz deflated"]),
        "pickle program": pickle_program,
        "safetensors rows": safetensors_rows,
        "npy header": npy_header,
        "msgpack tree": msgpack_tree,
        "index names": index_names,
    }
