"""The tab *Checkpoint*, driven in a browser as a person drives it."""

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from porting.checkpoint import open_checkpoint, save_params
from porting.examples import EXAMPLES
from porting.ui import checkpoint_tab

TAB = "tab=checkpoint"


@pytest.fixture
def person(visit):
    return lambda query="", **options: visit(f"{TAB}&{query}", tab="checkpoint", **options)


def choose(person, label: str) -> None:
    with person.change():
        person.field(label).check()


def upload(person, *paths: Path, field: int = 0) -> None:
    with person.change():
        person.tab.locator("input[type=file]").nth(field).set_input_files(paths)


def overrule(person, rules: Path) -> None:
    person.page.get_by_role("button", name="Overrule with a rules file").click()
    with person.change():
        person.page.locator("#checkpoint-rules input[type=file]").set_input_files(rules)


def row(person, key: str):
    return person.lens.locator(f"tr[data-key='{key}']")


def download(person, folder: Path) -> dict[str, Path]:
    """Port, and fetch what is handed over."""
    person.page.get_by_role("button", name="Port and save").click()
    links = person.tab.locator("a[download]")
    links.nth(2).wait_for()
    found = {}
    for link in links.all():
        with person.page.expect_download() as waiting:
            link.click()
        name = waiting.value.suggested_filename
        waiting.value.save_as(folder / name)
        found[name] = folder / name
    return found


def small(path: Path, **more) -> Path:
    draw = np.random.default_rng(0)
    shapes = {"fc1.weight": (7, 5), "fc1.bias": (7,), "fc2.weight": (3, 7), "fc2.bias": (3,)}
    arrays = {k: draw.standard_normal(s).astype("f") for k, s in shapes.items()}
    save_file(arrays | more, path)
    return path


def twin(path: Path) -> Path:
    layer = {"fc1": (5, 7), "fc2": (7, 3)}
    tree = {n: {"kernel": np.zeros(s, "f"), "bias": np.zeros(s[1], "f")} for n, s in layer.items()}
    save_params(path, {"params": tree})
    return path


def test_it_opens_on_a_question(person):
    at = person()
    at.see("A question for you")
    assert "15 of 16 leaves are sure; 1 question left." in at.verdict
    options = at.lens.locator(".pl-options label .pl-mono").all_inner_texts()
    assert options == [
        "dense4.weight by o (c h w) -> (h w c) o; c=64, w=3",
        "dense4.weight by o i -> i o",
    ]
    assert at.lens.locator(".pl-options input:checked").count() == 0
    assert not at.lens.locator(".pl-alike").is_visible()
    glosses = at.lens.locator(".pl-options .pl-below").all_inner_texts()
    assert glosses[1] == "Transposed only: (out, in) becomes (in, out)."
    assert at.plot("needed").is_visible()


@pytest.mark.parametrize(
    ("source", "target", "title"),
    [
        ("mtcnn_rnet", "rnet-nnx", "A question for you"),
        ("m6aformer", "block-linen", "Every leaf has its tensor"),
        ("m6aformer", "block-nnx", "Every leaf has its tensor"),
        ("m6aformer", "rnet-linen", "Does not fit"),
        ("m6aformer", "none", "Read as data only"),
    ],
)
def test_every_checkpoint_with_every_target(person, source, target, title):
    at = person(f"source={source}&target={target}")
    at.see(title)
    assert at.lens.locator(".pl-plot").count() >= 1


def test_a_checkpoint_brings_its_model(person):
    at = person()
    choose(at, "m6aformer encoder layer")
    at.see("Every leaf has its tensor")
    assert at.field("Encoder block, Linen").is_checked()
    assert "source=m6aformer&target=block-linen" in at.page.url


def test_the_answer_is_used_in_the_port_and_in_the_rules(person, tmp_path):
    at = person()
    with at.change():
        at.lens.get_by_label("dense4.weight by o i -> i o").check()
    at.see("Every leaf has its tensor")
    assert at.lens.get_by_label("dense4.weight by o i -> i o").is_checked()
    found = download(at, tmp_path)
    assert sorted(found) == ["mapping.toml", "params.safetensors", "port.py"]
    source = load_file(EXAMPLES["mtcnn_rnet"].path)
    with open_checkpoint(found["params.safetensors"]) as made:
        np.testing.assert_array_equal(
            made["params/dense4/kernel"], source["dense4.weight"].T, strict=True
        )
    rows = tomllib.loads(found["mapping.toml"].read_text())["leaf"]
    kernel = next(r for r in rows if r["path"] == "params/dense4/kernel")
    assert kernel["pattern"] == "o i -> i o"
    assert "sure" not in kernel


def test_the_script_runs_in_a_fresh_process(person, tmp_path):
    at = person("source=m6aformer&target=block-linen")
    script = download(at, tmp_path)["port.py"]
    name = EXAMPLES["m6aformer"].path.name
    (tmp_path / name).write_bytes(EXAMPLES["m6aformer"].path.read_bytes())
    done = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_nothing_stays_behind(person, tmp_path):
    before = set(Path(tempfile.gettempdir()).glob("portlens-*"))
    at = person("source=m6aformer&target=block-nnx")
    download(at, tmp_path)
    at.page.get_by_role("button", name="Cancel").wait_for(state="hidden")
    assert set(Path(tempfile.gettempdir()).glob("portlens-*")) == before


def test_a_row_opens_its_picture_and_a_link_comes_back_to_it(person):
    at = person("source=m6aformer&target=block-nnx")
    with at.change():
        row(at, "ff1/kernel").click()
    assert row(at, "ff1/kernel").get_attribute("aria-selected") == "true"
    assert at.lens.get_by_text("Source: linear1.weight").is_visible()
    again = person(at.page.url.partition(f"{TAB}&")[2])
    assert row(again, "ff1/kernel").get_attribute("aria-selected") == "true"


def test_only_looking_shows_any_tensor_and_its_spread(person):
    at = person("target=none")
    assert not at.page.get_by_role("button", name="Port and save").is_visible()
    at.lens.get_by_label("Filter the rows").fill("conv2 w")
    assert at.lens.locator("tr[data-key]").count() == 1
    with at.change():
        row(at, "conv2.weight").click()
    assert "axis 0 · axis 2 = 48 × 3" in at.plot("tensor").get_attribute("aria-label")
    assert at.lens.get_by_text("How its numbers are spread").is_visible()


def test_the_tree_of_the_file_beside_a_mapping(person):
    at = person("source=m6aformer&target=block-linen")
    assert at.plot("tensor").count() == 0
    file = at.lens.locator(".pl-block", has=at.page.get_by_role("heading", name="In the file"))
    branches = file.locator("tr.pl-branch").all_inner_texts()
    assert [text.split("(")[0] for text in branches] == [
        "▾ linear1", "▾ linear2", "▾ norm1", "▾ norm2", "▾ self_attn", "▾ out_proj",
    ]  # fmt: skip
    assert "264,192" in branches[0]
    key = "self_attn.out_proj.weight"
    assert row(at, key).locator(".pl-bars path").count() == 1
    file.locator("tr.pl-branch", has_text="self_attn").press("Enter")
    assert row(at, key).count() == 0
    file.locator("tr.pl-branch", has_text="self_attn").click()
    with at.change():
        row(at, key).click()
    assert at.plot("tensor").is_visible()
    assert at.plot("needed").is_visible()
    again = person(at.page.url.partition(f"{TAB}&")[2])
    assert row(again, key).get_attribute("aria-selected") == "true"


def test_long_stacks_start_folded(person, tmp_path):
    arrays = {f"h.{i}.{n}": np.ones(3, "f") for i in range(12) for n in ("a.w", "b.w", "c.w")}
    at = person("target=none")
    choose(at, "Upload")
    upload(at, small(tmp_path / "deep.safetensors", **arrays))
    at.see("Read as data only")
    line = at.lens.locator("tr.pl-branch", has_text="10(3)")
    assert line.get_attribute("aria-expanded") == "false"
    line.click()
    assert row(at, "h.10.b.w").is_visible()
    assert row(at, "h.9.b.w").count() == 0
    at.lens.get_by_label("Filter the rows").fill("h.9 b")
    assert row(at, "h.9.b.w").locator("td").first.inner_text() == "h.9.b.w"


def test_a_large_leaf_is_followed_to_the_very_number(person):
    """128 × 576 is pooled: a cell stands for its largest number, wherever the other one is."""
    at = person()
    at.point("source", 100, 100)
    found = re.match(
        r"source\[(\d+), (\d+)\] = flat\[(\d+)\] → needed\[(\d+), (\d+)\] = (.+)", at.readout
    )
    o, i, flat, moved, out = map(int, found.groups()[:5])
    source = load_file(EXAMPLES["mtcnn_rnet"].path)["dense4.weight"]
    assert (flat, out) == (o * 576 + i, o)
    assert moved == (i % 9) * 64 + i // 9  # c h w -> h w c
    assert float(found[6].replace("−", "-")) == pytest.approx(float(source[o, i]), rel=1e-3)
    assert at.marks("needed", "same") == 1


def test_one_answer_for_all_that_are_alike(person, tmp_path):
    draw = np.random.default_rng(0)
    arrays, tree = {}, {}
    for i in range(3):
        arrays |= {f"l.{i}.{n}.weight": draw.standard_normal((4, 4)).astype("f") for n in "ab"}
        tree[f"l_{i}"] = {f"Dense_{n}": {"kernel": np.zeros((4, 4), "f")} for n in range(2)}
    save_file(arrays, tmp_path / "model.safetensors")
    save_params(tmp_path / "like.npz", {"params": tree})
    at = person("target=none")
    choose(at, "Upload")
    upload(at, tmp_path / "model.safetensors")
    choose(at, "Upload parameters")
    upload(at, tmp_path / "like.npz", field=1)
    at.see("A question for you")
    before = int(re.search(r"(\d+) questions left", at.verdict)[1])
    at.lens.get_by_label("Answer the same question alike in 2 other layers").check()
    with at.change():
        at.lens.locator(".pl-options input").first.check()
    after = re.search(r"(\d+) questions? left", at.verdict)
    assert before - int(after[1] if after else 0) == 3


def test_a_rules_file_answers_the_question(person, tmp_path):
    at = person()
    rules = tmp_path / "mapping.toml"
    rules.write_text(
        "[[leaf]]\nsource = 'dense4\\.weight'\npath = 'params/dense4/kernel'\npattern = 'o i -> i o'\n"
    )
    overrule(at, rules)
    at.see("Every leaf has its tensor")
    found = download(at, tmp_path)
    source = load_file(EXAMPLES["mtcnn_rnet"].path)
    with open_checkpoint(found["params.safetensors"]) as made:
        np.testing.assert_array_equal(made["params/dense4/kernel"], source["dense4.weight"].T)
    choose(at, "MTCNN RNet, NNX")
    at.see("A question for you")  # another target: the rules went with the old one


def test_rules_that_do_not_fit_are_told_in_place(person, tmp_path):
    at = person()
    rules = tmp_path / "rules.json"
    rules.write_text('{"leaf": [{"source": "(x+x+)+y", "path": "params/dense4/kernel"}]}')
    overrule(at, rules)
    at.see("Not possible")
    assert "[[leaf]] row 1 names nothing" in at.verdict


def test_an_upload_onto_uploaded_parameters(person, tmp_path):
    at = person()
    choose(at, "Upload")
    at.see("Not possible")
    assert "There is no checkpoint yet." in at.verdict
    upload(at, small(tmp_path / "model.safetensors"))
    at.see("Read as data only")
    assert at.field("None: only look").is_checked()
    choose(at, "Upload parameters")
    upload(at, twin(tmp_path / "like.msgpack"), field=1)
    at.see("Every leaf has its tensor")
    found = download(at, tmp_path)
    weight = load_file(tmp_path / "model.safetensors")["fc2.weight"]
    with open_checkpoint(found["params.safetensors"]) as made:
        np.testing.assert_array_equal(made["params/fc2/kernel"], weight.T, strict=True)


def test_several_shards_with_their_index(person, tmp_path):
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for i, name in enumerate(names):
        save_file({f"part{i}": np.ones((3, 5), "f")}, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {f"part{i}": n for i, n in enumerate(names)}}))
    at = person("target=none")
    choose(at, "Upload")
    upload(at, *(tmp_path / n for n in names), index)
    at.see("Read as data only")
    assert "2 tensors, 120 bytes, safetensors, sharded" in at.verdict


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("page.safetensors", b"<!DOCTYPE html><html>", "page.safetensors is a web page"),
        ("model.pt", b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R.", "model.pt"),
        ("broken.safetensors", b"\x08\0\0\0\0\0\0\0{broken}", "broken.safetensors"),
    ],
)
def test_what_is_no_checkpoint_is_told_in_place(person, tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    at = person("target=none")
    choose(at, "Upload")
    upload(at, path)
    at.see("Not possible")
    assert words in at.verdict
    assert "The pictures below are from the last valid input." in at.verdict
    assert at.plot("tensor").is_visible()
    assert at.field("Upload").is_checked()


def test_names_are_text(person, tmp_path):
    odd = {"<img src=x onerror=alert(1)>": np.ones(3, "f"), "../../etc/passwd": np.ones(2, "f")}
    at = person("target=none")
    choose(at, "Upload")
    upload(at, small(tmp_path / "odd.safetensors", **odd))
    at.see("Read as data only")
    with at.change():
        at.lens.locator("tr", has_text="<img src=x onerror=alert(1)>").click()
    assert at.lens.locator("img").count() == 0
    assert at.lens.get_by_role("heading", name="<img src=x onerror=alert(1)>").is_visible()


def test_numbers_that_are_not_finite_are_counted(person, tmp_path):
    path = small(tmp_path / "odd.safetensors", a=np.array([np.nan, 1, np.inf], "f"))
    at = person("target=none")
    choose(at, "Upload")
    upload(at, path)
    row(at, "a").click()  # the only tensor: it is in the picture already
    at.lens.get_by_text("2 numbers are NaN or infinite.").wait_for()


def test_a_port_that_cannot_be_done_is_a_message(person):
    at = person("source=m6aformer&target=rnet-linen")
    at.page.get_by_role("button", name="Port and save").click()
    toast = at.page.get_by_test_id("toast-body")
    toast.wait_for()
    assert "The checkpoint does not fill the target" in toast.inner_text()
    at.page.get_by_role("button", name="Cancel").wait_for(state="hidden")
    at.see("Does not fit")


def test_a_cancel_stops_the_work(person, monkeypatch):
    """The work is made slow; a cancel ends it at its next step, and its folder goes."""
    begun, ended = threading.Event(), threading.Event()

    def slow(folder, *_):
        try:
            for _ in range(600):
                (folder / "part").write_text("x")
                yield 0.5, "Working", ()
                begun.set()
                time.sleep(0.1)
        finally:
            ended.set()

    before = set(Path(tempfile.gettempdir()).glob("portlens-*"))
    monkeypatch.setattr(checkpoint_tab, "_steps", slow)
    at = person("source=m6aformer&target=block-nnx")
    at.page.get_by_role("button", name="Port and save").click()
    stop = at.page.get_by_role("button", name="Cancel")
    stop.wait_for()
    assert begun.wait(10)
    stop.click()
    stop.wait_for(state="hidden")
    at.page.wait_for_timeout(1000)
    assert ended.wait(10)
    assert set(Path(tempfile.gettempdir()).glob("portlens-*")) == before


def test_visitors_do_not_meet(person, tmp_path):
    one, other = person("target=none"), person("target=none")
    choose(one, "Upload")
    upload(one, small(tmp_path / "mine.safetensors"))
    one.see("Read as data only")
    assert "4 tensors" in one.verdict
    assert "16 tensors" in other.verdict
    choose(other, "Upload")
    assert "There is no checkpoint yet." in other.verdict


def test_two_thousand_tensors(person, tmp_path):
    draw = np.random.default_rng(0)
    arrays, tree = {}, {}
    for i in range(1000):
        weight = draw.standard_normal((5, 3)).astype("f")
        arrays |= {f"layers.{i}.fc.weight": weight, f"layers.{i}.fc.bias": weight[:, 0].copy()}
        tree[f"layers_{i}"] = {"fc": {"kernel": np.zeros((3, 5), "f"), "bias": np.zeros(5, "f")}}
    save_file(arrays, tmp_path / "many.safetensors")
    save_params(tmp_path / "like.npz", {"params": tree})
    at = person()
    choose(at, "Upload")
    upload(at, tmp_path / "many.safetensors")
    at.see("Read as data only")
    assert "2,000 tensors" in at.verdict
    choose(at, "Upload parameters")
    upload(at, tmp_path / "like.npz", field=1)
    at.see("Every leaf has its tensor")
    # a line for each folded layer, the one that is looked at with its two, and their module
    assert at.lens.get_by_text("603 more rows: filter to see them.").is_visible()
    assert at.lens.get_by_text("601 more rows: filter to see them.").is_visible()


def test_a_phone_shows_the_question_before_the_table(person):
    at = person(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    tops = [
        at.lens.locator(part).first.bounding_box()["y"]
        for part in (".pl-verdict", ".pl-choices", ".pl-table", ".pl-plot")
    ]
    assert tops == sorted(tops)
    assert at.page.evaluate("document.documentElement.scrollWidth") <= 390
    with at.change():
        at.lens.get_by_label("dense4.weight by o i -> i o").check()
    at.see("Every leaf has its tensor")


@pytest.mark.parametrize("query", ["source=../x&target=<b>", "pick=%00nowhere", "target=upload"])
def test_a_spoilt_link_still_opens(person, query):
    at = person(query)
    at.see("A question for you")
