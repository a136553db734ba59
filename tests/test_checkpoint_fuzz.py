"""A short run of `benchmarks/fuzz_checkpoints.py`, the same one every time."""

import os

import pytest

from benchmarks.fuzz_checkpoints import builders, check, fuzz
from porting.checkpoint import open_checkpoint


@pytest.mark.parametrize("name", builders())
def test_mutated_files_are_read_or_refused(name, tmp_path):
    tally = fuzz(name, 100, 1, tmp_path)
    assert tally.files == 100
    assert tally.refused > 10


def test_an_escape_is_seen(monkeypatch, tmp_path):
    def broken(path):
        raise IndexError("list index out of range")

    monkeypatch.setattr("benchmarks.fuzz_checkpoints.open_checkpoint", broken)
    with pytest.raises(IndexError):
        check(tmp_path / "any")


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="asks Linux what is open")
def test_a_file_that_is_left_open_is_seen(monkeypatch, tmp_path):
    kept = []

    def leaks(path):
        kept.append(path.open("rb"))
        return real(path)

    real = open_checkpoint
    monkeypatch.setattr("benchmarks.fuzz_checkpoints.open_checkpoint", leaks)
    with pytest.raises(AssertionError, match="a file is still open"):
        fuzz("npy", 3, 1, tmp_path)
    for file in kept:
        file.close()
