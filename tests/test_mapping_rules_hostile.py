"""A rules file from a stranger: it is refused in a sentence, and never takes long."""

import numpy as np
import pytest

from porting import limits
from porting.errors import LimitError, PortingError, RuleError
from porting.mapping import Mapping, infer_mapping, port_checkpoint
from porting.mapping.rules import parse_rules

SOURCE = {f"layer.{i}.{'a' * 400}.weight": np.zeros((5, 3), np.float32) for i in range(300)}
TARGET = {f"layer_{i}/fc/kernel": np.zeros((3, 5), np.float32) for i in range(300)}


def row(source: str, path: str = r"layer_\1/fc/kernel", **more: str) -> str:
    entries = {"source": source, "path": path, **more}
    return "[[leaf]]\n" + "".join(f"{k} = '{v}'\n" for k, v in entries.items())


@pytest.mark.parametrize(
    "pattern",
    [r"layer\.(\d+)\.(a+)+b", r"layer\.(\d+)\.(a|aa)+c", r"(.*.*.*.*.*.*)*=", r"(\w|\d|a)*!"],
)
def test_a_pattern_that_takes_others_for_ever_takes_no_time(pattern):
    """Each of these takes a backtracking matcher longer than the age of the universe."""
    with pytest.raises(RuleError, match="names nothing"):
        infer_mapping(SOURCE, TARGET, rules=row(pattern))


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (row(r"(?=a)b"), "no regular expression of RE2: invalid perl operator"),
        (row(r"(a{1000}){1000}"), "no regular expression of RE2: invalid repetition size"),
        (row(r"(\d+)", join="weight_norm:x"), "There is no join 'weight_norm:x'"),
        (row(r"(\d+)", pattern="o i -> i o; o=" + "9" * 5000), "longer than 4,000 characters"),
        (row(r"(\d+)", pattern="o i -> " * 2), "cannot be read|twice|one side"),
        (row(r"layer\.(\d+)\..*", r"layer_\7/fc/kernel"), "does not fit: there is no group 7"),
        ("[[leaf]]\nsource = 3\npath = 'x'\n", "is text"),
        ("leaf = 3\n", "not a list of rows"),
        ("\x00", "neither TOML nor JSON"),
    ],
)
def test_a_hostile_row_is_told(rules, words):
    with pytest.raises(PortingError, match=words):
        infer_mapping(SOURCE, TARGET, rules=rules)


def test_sizes_are_bounded_before_any_work():
    with pytest.raises(LimitError, match="characters, which is the limit"):
        parse_rules("#" * (limits.RULES_CHARACTERS + 1) + "\n")
    many = "".join(row(rf"layer\.(\d+)\.{i}.*") for i in range(limits.RULE_TRIES // 300 + 1))
    with pytest.raises(LimitError, match="pairs of a pattern and a tensor"):
        infer_mapping(SOURCE, TARGET, rules=many)


def test_twenty_thousand_plain_rows_are_read_at_once():
    """Rows that name one tensor each do not read every other one."""
    keys = [f"block.fc{i}x.weight" for i in range(limits.TENSORS)]
    source = dict.fromkeys(keys, np.zeros((5, 3), np.float32))
    target = {key.replace(".", "/"): np.zeros((3, 5), np.float32) for key in keys}
    rules = "".join(row(k.replace(".", r"\."), k.replace(".", "/")) for k in keys)
    assert len(Mapping.from_rules(rules, source, target).leaves) == limits.TENSORS


@pytest.mark.parametrize("join", ["concat", "sum", "stack", "weight_norm:7", "spectral_norm:0"])
def test_a_join_that_does_not_fit_is_told(join):
    source = {"a": np.zeros((5, 3), np.float32), "b": np.zeros(4, np.float32)}
    rules = f"[[leaf]]\nsource = ['a', 'b']\npath = 'k'\npattern = 'o i -> i o'\njoin = '{join}'\n"
    target = {"k": np.zeros((3, 5), np.float32)}
    with pytest.raises(PortingError, match="k"):
        port_checkpoint(source, target, infer_mapping(source, target, rules=rules))


def test_names_of_any_script_are_found_and_filled_in():
    source = {"слой.3.вес": np.zeros((5, 3)), "a\ud800.w": np.zeros(2)}
    target = {"schicht_ä3/kernel": np.zeros((3, 5))}
    rules = row(r"слой\.(\d+)\.вес", r"schicht_ä\1/kernel")
    assert infer_mapping(source, target, rules=rules).leaves["schicht_ä3/kernel"].confident
