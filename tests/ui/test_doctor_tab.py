"""The tab *Doctor*, driven in a browser as a person drives it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flax import linen as nn

from porting.breaks import BREAKS, break_tree
from porting.checkpoint import open_checkpoint, save_params
from porting.doctor import diagnose
from porting.examples import EXAMPLES
from porting.mapping import port_checkpoint
from porting.models import MODELS, decided_mapping, traces_of
from porting.trace import record_linen
from porting.tree import flatten, unflatten

CHECKPOINT = EXAMPLES["m6aformer"].path
KERNEL = "params/attn/out_proj/kernel"


@pytest.fixture
def doctor(visit):
    """Opens the tab by its link."""
    return lambda query="", **options: visit(f"tab=doctor&{query}", tab="doctor", **options)


@pytest.fixture(scope="module")
def clean():
    """The right leaves of the encoder block."""
    with open_checkpoint(CHECKPOINT) as checkpoint:
        source = {key: np.array(checkpoint[key]) for key in checkpoint}
    mapping = decided_mapping("block-linen", source)
    return flatten(port_checkpoint(source, MODELS["block-linen"].target(), mapping)[0])


def upload(person, field: str, *files: Path) -> None:
    chooser = person.page.locator(f"#doctor-{field} input[type=file]")
    chooser.set_input_files([str(f) for f in files])


def test_findings_come_first_with_a_fix_to_copy(doctor):
    person = doctor()
    person.see("Silent wrong layout")
    finding = person.lens.locator(".pl-finding").first
    assert 'ported["params/attn/k_proj/bias"] = source[' in finding.inner_text()
    assert finding.get_by_role("button", name="Copy all 2").is_visible()
    tops = [person.lens.locator(s).first.bounding_box()["y"] for s in (".pl-finding", ".pl-table")]
    assert tops == sorted(tops)
    person.lens.get_by_label("Only what is not right").check()
    assert person.lens.locator(".pl-table tbody tr").count() == 6


def test_a_row_opens_source_given_and_needed_linked(doctor):
    person = doctor()
    with person.change():
        person.lens.locator(f"tr[data-key='{KERNEL}']").press("Enter")
    person.point("ported", 3, 40)
    assert person.readout.startswith("source[3, 40] = flat[424] → ")
    assert person.marks("source", "same") == person.marks("needed", "same") == 1
    assert "pick=params" in person.page.url


def test_a_clean_port_is_exact(doctor):
    person = doctor("breaks=")
    person.see("Exact")
    assert person.lens.locator(".pl-finding").count() == 0


def test_a_riddle_keeps_its_answer_until_it_is_revealed(doctor):
    person = doctor("patient=rnet-linen")
    with person.change():
        person.lens.get_by_role("button", name="Give me a riddle").click()
    person.see("What is wrong here?")
    assert "hidden=" in person.page.url
    assert person.lens.locator(".pl-finding, .pl-status-wrong").count() == 0
    assert person.tab.get_by_text("Your guess", exact=True).is_visible()
    with person.change():
        person.tab.get_by_label(BREAKS["zero_bias"].title).check()
    person.see("What is wrong here?")
    with person.change():
        person.lens.get_by_role("button", name="Reveal").click()
    assert "The riddle was:" in person.verdict
    assert "You guessed" in person.verdict
    assert person.lens.locator(".pl-finding").count() >= 1


def test_both_models_are_run_and_the_stage_is_named(doctor):
    person = doctor("breaks=random_leaf&forward=1")
    assert "Where the forward pass parts" in person.lens.inner_text()
    assert "starts here" in person.lens.locator(".js-plotly-plot", has_text="ff2").inner_text()


def test_own_files_and_traces_are_diagnosed(doctor, clean, tmp_path):
    broken = break_tree(clean, ["square"])
    save_params(tmp_path / "params.safetensors", broken)
    for name, leaves in (("right", clean), ("wrong", broken)):
        traces_of("block-linen", leaves).save(tmp_path / f"{name}.safetensors")
    person = doctor()
    with person.change():
        person.tab.get_by_label("Your own files").check()
    person.see("Not possible")
    assert "There are no files yet." in person.verdict
    upload(person, "checkpoint", CHECKPOINT)
    upload(person, "params", tmp_path / "params.safetensors")
    person.see("Silent wrong layout")
    assert "4 of 16 leaves are wrong" in person.verdict
    traces = [tmp_path / f"{name}.safetensors" for name in ("right", "wrong")]
    upload(person, "traces", *traces)
    person.lens.get_by_text("Where the forward pass parts").wait_for()
    assert "tab=doctor&patient=upload" not in person.page.url


class Deep(nn.Module):
    """A module in modules of long names."""

    inner: nn.Module

    @nn.compact
    def __call__(self, x):
        return self.inner.clone(parent=self, name="encoder_block_of_layer_11")(x)


def test_a_code_fault_leads_where_every_leaf_is_right(doctor, clean, tmp_path):
    block = unflatten(clean)["params"]
    variables = {"params": {"encoder_block_of_layer_11": block}}
    save_params(tmp_path / "params.safetensors", variables)
    module, sample = MODELS["block-linen"].target()
    x = np.random.default_rng(0).standard_normal(sample.shape, np.float32)
    for name, epsilon in (("right", 1e-5), ("wrong", 1e-2)):
        trace = record_linen(Deep(module.clone(epsilon=epsilon)), variables, x, double=True)
        trace.save(tmp_path / f"{name}.safetensors")
    person = doctor()
    with person.change():
        person.tab.get_by_label("Your own files").check()
    upload(person, "checkpoint", CHECKPOINT)
    upload(person, "params", tmp_path / "params.safetensors")
    person.see("Exact")
    upload(person, "traces", tmp_path / "right.safetensors", tmp_path / "wrong.safetensors")
    person.see("Right leaves, wrong code")
    assert "All 16 leaves hold what they should" in person.verdict
    finding = person.lens.locator(".pl-finding").first.inner_text()
    assert "What differs: epsilon. Parity is restored by epsilon = 1e-05." in finding
    assert "The candidate computes epsilon = 0.01." in finding
    assert "epsilon = 1e-05" in person.lens.locator("pre:visible").inner_text()
    names = person.lens.locator(".ytick text", has_text="layer_11")
    edges = names.evaluate_all(
        "(all) => all.map((name) => name.getBoundingClientRect().x - "
        "name.closest('svg').getBoundingClientRect().x)"
    )
    assert len(edges) == 9
    assert min(edges) >= 0  # no name of a stage is cut off


def test_nonsense_is_answered_with_a_message(doctor, tmp_path):
    nonsense = tmp_path / "nonsense.safetensors"
    nonsense.write_bytes(b"\xff" * 64)
    person = doctor()
    with person.change():
        person.tab.get_by_label("Your own files").check()
    upload(person, "checkpoint", nonsense)
    upload(person, "params", nonsense)
    person.lens.get_by_text("safetensors").first.wait_for()
    person.see("Not possible")
    stranger = doctor("patient=upload")
    assert "There are no files yet." not in stranger.verdict  # a link holds no files
    stranger.see("Silent wrong layout")


def test_what_is_saved_is_right_and_its_test_passes(doctor, tmp_path):
    person = doctor()
    person.tab.get_by_role("button", name="Repair and save").click()
    links = person.tab.locator("a[download]")
    links.nth(3).wait_for()
    for i in range(links.count()):
        with person.page.expect_download() as waiting:
            links.nth(i).click()
        waiting.value.save_as(tmp_path / waiting.value.suggested_filename)
    names = {"params.safetensors", "report.json", "report.txt", "test_port.py"}
    assert {p.name for p in tmp_path.iterdir()} == names
    (tmp_path / CHECKPOINT.name).write_bytes(CHECKPOINT.read_bytes())
    with (
        open_checkpoint(CHECKPOINT) as source,
        open_checkpoint(tmp_path / "params.safetensors") as p,
    ):
        assert diagnose(source, {path: p[path] for path in p}).ok
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_port.py"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stdout


def test_a_phone_sees_the_findings_before_the_controls(doctor):
    person = doctor(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    controls = person.tab.locator(".pl-controls").bounding_box()["y"]
    assert person.lens.locator(".pl-finding").first.bounding_box()["y"] < controls
    assert person.page.evaluate("document.documentElement.scrollWidth") <= 390
