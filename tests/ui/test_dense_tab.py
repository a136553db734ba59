"""The tab *Dense load*, driven in a browser as a person drives it."""

import numpy as np
import pytest
from safetensors.numpy import save_file

KEYS = ["weight", "kernel", "needed", "flat"]
OUTPUTS = ["reference", "output", "difference", "ratio"]


def test_it_opens_on_a_silent_fault_without_a_click(visit):
    person = visit()
    assert "Silent wrong layout" in person.verdict
    assert "Your kernel is the weight, not its transpose." in person.verdict
    assert "kernel = weight.T" in person.verdict
    for key in KEYS + OUTPUTS:
        assert person.plot(key).is_visible()


def test_everything_that_matters_is_on_the_first_screen(visit):
    person = visit()
    for key in KEYS:
        box = person.plot(key).bounding_box()
        assert box["y"] + box["height"] <= 900, key


def test_do_it_right(visit):
    person = visit()
    with person.change():
        person.page.get_by_role("button", name="Do it right").click()
    person.see("Exact")
    assert "Every output is within rounding." in person.verdict
    assert person.field("Transpose (right)").is_checked()
    assert "port=transpose" in person.page.url


@pytest.mark.parametrize(
    ("port", "title"),
    [
        ("Transpose (right)", "Exact"),
        ("Reshape instead of transpose", "Silent wrong layout"),
        ("Fortran-order reshape", "Silent wrong layout"),
        ("Bias forgotten", "Wrong values"),
        ("Random init kept", "Wrong values"),
    ],
)
def test_every_way_has_its_verdict(visit, port, title):
    person = visit()
    with person.change():
        person.field(port).check()
    person.see(title)


def test_a_non_square_layer_crashes_with_the_words_of_flax_folded(visit):
    person = visit()
    with person.change():
        person.page.get_by_role("button", name="Make it non-square").click()
    person.see("Crash")
    assert "With a square layer nothing would." in person.verdict
    words = person.lens.locator("details pre")
    assert not words.is_visible()
    person.page.get_by_text("What Flax says").click()
    assert "ScopeParamShapeError" in words.inner_text()
    assert person.lens.locator("[data-key=output]").count() == 0
    with person.change():
        person.page.get_by_role("button", name="Make it square").click()
    person.see("Silent wrong layout")


def test_pointing_at_a_cell_marks_it_everywhere(visit):
    person = visit("tab=dense&port=transpose&in_dim=7&features=5&n=3")
    person.point("weight", 2, 4)
    assert person.marks("weight", "here") == 1
    for key in ("kernel", "needed", "flat"):
        assert person.marks(key, "same") == 1, key
    for key in OUTPUTS:
        assert person.marks(key, "feeds") == 1, key
    assert person.readout.startswith("weight[2, 4] = flat[18] → needed[4, 2] and kernel[4, 2] = ")
    assert mark_is_at(person, "kernel", "same", 4, 2)
    assert mark_is_at(person, "flat", "same", 0, 18)


def mark_is_at(person, key: str, kind: str, row: int, column: int) -> bool:
    box = person.plot(key).locator(f".pl-{kind}").first.bounding_box()
    x, y = person.cell(key, row, column)
    return box["x"] < x < box["x"] + box["width"] and box["y"] < y < box["y"] + box["height"]


def test_a_reshape_puts_the_same_number_elsewhere(visit):
    person = visit("tab=dense&port=reshape&in_dim=7&features=5&n=3")
    person.point("weight", 2, 4)
    assert mark_is_at(person, "kernel", "same", 18 // 5, 18 % 5)
    assert mark_is_at(person, "needed", "same", 4, 2)


def test_pointing_at_an_output_reads_out_all_four(visit):
    person = visit("tab=dense&in_dim=7&features=7&n=3")
    person.point("output", 1, 3)
    assert person.readout.count("[1, 3] = ") == 4
    assert person.marks("reference", "same") == 1
    assert person.marks("weight", "feeds") == 1


def test_the_arrow_keys_move_the_cell(visit):
    person = visit("tab=dense&port=transpose&in_dim=7&features=5")
    plot = person.plot("weight")
    plot.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"):
        plot.press(key)
    assert person.readout.startswith("weight[1, 0] = flat[7]")
    assert person.marks("needed", "same") == 1
    plot.press("ArrowUp")
    plot.press("ArrowUp")
    assert person.readout.startswith("weight[0, 0] = flat[0]")
    plot.press("Escape")
    assert person.marks("needed", "same") == 0


def test_a_click_pins_the_cell_and_a_second_one_lets_it_go(visit):
    person = visit()
    person.point("weight", 2, 4)
    person.page.mouse.click(*person.cell("weight", 2, 4))
    pinned = person.readout
    person.point("weight", 0, 0)
    assert person.readout == pinned
    person.page.mouse.click(*person.cell("weight", 2, 4))
    person.point("weight", 0, 0)
    assert person.readout.startswith("weight[0, 0]")


def test_the_move_can_be_played(visit):
    person = visit()
    person.page.get_by_role("button", name="Play the move").click()
    person.page.wait_for_function("!document.querySelector('.pl-flight')")


def test_a_link_opens_on_the_same_view(visit):
    first = visit()
    with first.change():
        first.field("Fortran-order reshape").check()
    for label, value in (("in", 7), ("features", 5), ("N", 3), ("data seed", 11), ("init seed", 2)):
        with first.change():
            first.fill(label, value)
    link = first.page.url.partition("?")[2]
    second = visit(link)
    assert second.verdict == first.verdict
    for label, value in (("in", "7"), ("features", "5"), ("N", "3"), ("data seed", "11")):
        assert second.field(label).input_value() == value
    assert second.field("Fortran-order reshape").is_checked()
    assert second.page.url.partition("?")[2] == link


@pytest.mark.parametrize(
    "query", ["port=<b>&n=²&layer=../../x&tab=nowhere", "in_dim=-3", "n=99999"]
)
def test_a_spoilt_link_still_opens(visit, query):
    person = visit(query)
    assert person.lens.locator(".pl-verdict").is_visible()


def test_a_real_layer(visit):
    person = visit()
    with person.change():
        person.field("A real layer").check()
    assert "source=real" in person.page.url
    person.see("Crash")
    assert "(in, out) = (576, 128) and got (128, 576)" in person.verdict
    with person.change():
        person.field("Layer").click()
        person.page.get_by_role("option", name="m6aformer:self_attn.out_proj.weight").click()
    person.see("Silent wrong layout")
    assert "of 768 outputs" in person.verdict
    again = visit(person.page.url.partition("?")[2])
    assert again.field("A real layer").is_checked()
    assert again.verdict == person.verdict


def test_pasted_numbers(visit):
    person = visit("port=transpose")
    with person.change():
        person.field("Pasted numbers").check()
    assert person.lens.get_by_text("Your kernel (in, out)").is_visible()
    with person.change():
        person.field("weight (out, in)").fill("1 2 3\n4 5 6")
    person.see("Exact")
    assert (
        person.plot("weight")
        .get_attribute("aria-label")
        .startswith("PyTorch weight (out, in), out = 2, in = 3")
    )
    with person.change():
        person.field("weight (out, in)").fill("1 2 3\n4 5")
    person.see("Not possible")
    assert "Row 2 of weight has 2 numbers and row 1 has 3." in person.verdict


def test_a_wrong_input_keeps_the_last_picture_and_names_its_field(visit):
    person = visit()
    with person.change():
        person.fill("features", 0)
    person.see("Not possible")
    assert "features = 0 is not a size." in person.verdict
    assert "The pictures below are from the last valid input." in person.verdict
    assert person.plot("weight").is_visible()
    assert person.tab.locator("label.pl-invalid", has_text="features").count() == 1
    with person.change():
        person.fill("features", 5)
    person.see("Crash")
    assert person.tab.locator(".pl-invalid").count() == 0


@pytest.mark.parametrize("value", [10**9, -1, 8193])
def test_sizes_beyond_the_limit_are_explained(visit, value):
    person = visit()
    with person.change():
        person.fill("in", value)
    person.see("Not possible")
    assert f"in = {value:,} is" in person.verdict


def upload(person, path) -> None:
    with person.change():
        person.field("A .safetensors file").check()
    with person.change():
        person.tab.locator("input[type=file]").set_input_files(path)


def test_an_upload_and_its_tensors(visit, tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "small.safetensors"
    tensors = {
        "fc.weight": (5, 7),
        "fc.bias": (5,),
        "head.<b>x</b>.weight": (3, 5),
        "conv": (2, 3, 1, 1),
    }
    save_file({k: rng.standard_normal(s).astype("f") for k, s in tensors.items()}, path)
    person = visit("port=transpose")
    upload(person, path)
    person.see("Exact")
    assert "(5, 7)" in person.lens.locator(".pl-facts").inner_text()
    person.field("2-D tensor").click()
    offered = [o.inner_text().split()[-1] for o in person.page.get_by_role("option").all()]
    assert sorted(offered) == ["fc.weight", "head.<b>x</b>.weight"]
    with person.change():
        person.page.get_by_role("option", name="head.<b>x</b>.weight").click()
    assert "(3, 5)" in person.lens.locator(".pl-facts").inner_text()


def test_a_big_upload_is_pooled_and_a_part_of_it_comes_closer(visit, tmp_path):
    path = tmp_path / "big.safetensors"
    weight = np.random.default_rng(0).standard_normal((4096, 2048), np.float32)
    save_file({"mlp.weight": weight}, path)
    person = visit("port=transpose")
    upload(person, path)
    person.see("Exact")
    assert person.lens.get_by_text("Each cell is the largest of 43 × 22.").count() == 1
    assert person.plot("weight").locator(".pl-norms i").count() == 96 + 94
    person.plot("weight").scroll_into_view_if_needed()
    start, end = (person.cell("weight", 43 * k, 22 * k) for k in (10, 30))
    person.page.mouse.move(*start)
    person.page.mouse.down()
    person.page.mouse.move(*end, steps=4)
    person.page.mouse.up()
    person.lens.locator(".pl-plot[data-tile]").wait_for()
    top, bottom, left, right = map(int, person.plot("weight").get_attribute("data-tile").split(","))
    assert 300 < top < 500
    assert 1200 < bottom < 1400
    assert 150 < left < 300
    assert 600 < right < 720


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("page.safetensors", b"<!DOCTYPE html><html>", "web page"),
        ("pointer.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
        ("broken.safetensors", b"\x08\0\0\0\0\0\0\0{broken}", ""),
    ],
)
def test_an_upload_that_is_no_checkpoint(visit, tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    person = visit()
    with person.change():
        person.field("A .safetensors file").check()
    person.tab.locator("input[type=file]").set_input_files(path)
    toast = person.page.get_by_test_id("toast-body")
    toast.wait_for()
    assert words in toast.inner_text()
    assert person.plot("weight").is_visible()


def test_the_code_can_be_copied(visit):
    person = visit("port=transpose", permissions=["clipboard-read", "clipboard-write"])
    block = person.lens.locator(".pl-block", has=person.page.locator(".pl-code"))
    block.get_by_role("button", name="Copy", exact=True).click()
    copied = person.page.evaluate("navigator.clipboard.readText()")
    assert copied == block.locator("code").text_content()
    assert "kernel = weight.T" in copied


def test_dark_mode(visit):
    light, dark = visit("__theme=light"), visit("__theme=dark")
    grounds = [
        p.page.evaluate(
            "getComputedStyle(document.querySelector('.gradio-container')).backgroundColor"
        )
        for p in (light, dark)
    ]
    assert grounds == ["rgb(251, 252, 252)", "rgb(16, 22, 28)"]
    inks = [
        p.lens.locator(".pl-text").evaluate("n => getComputedStyle(n).color") for p in (light, dark)
    ]
    assert inks == ["rgb(29, 39, 48)", "rgb(232, 237, 241)"]
    ticks = [
        p.lens.locator(".xtick text").first.evaluate("n => getComputedStyle(n).fill")
        for p in (light, dark)
    ]
    assert ticks[0] != ticks[1]
    assert "__theme=dark" in dark.page.url


def test_a_phone_sees_the_verdict_and_the_pictures_before_the_controls(visit):
    person = visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    tops = [
        person.lens.locator(".pl-verdict").bounding_box()["y"],
        person.plot("weight").bounding_box()["y"],
        person.plot("ratio").bounding_box()["y"],
        person.tab.locator(".pl-controls").bounding_box()["y"],
    ]
    assert tops == sorted(tops)
    assert person.page.evaluate("document.documentElement.scrollWidth") <= 390
    person.plot("weight").scroll_into_view_if_needed()
    person.page.touchscreen.tap(*person.cell("weight", 2, 4))
    assert person.readout.startswith("weight[2, 4] = flat[16]")


def test_everything_can_be_reached_by_keyboard(visit):
    person = visit()
    seen = set()
    for _ in range(60):
        person.page.keyboard.press("Tab")
        seen.add(
            person.page.evaluate(
                "(document.activeElement.dataset.key || document.activeElement.textContent || '').trim()"
            )
        )
    assert {
        "weight",
        "kernel",
        "needed",
        "ratio",
        "Do it right",
        "Copy link",
        "Make it square",
    } <= seen


def test_many_updates_leave_the_page_as_small_as_it_was(visit):
    person = visit("in_dim=16&features=16")
    count = "document.getElementsByTagName('*').length"
    names = [
        "Transpose (right)",
        "Reshape instead of transpose",
        "Fortran-order reshape",
        "Transpose forgotten",
    ]

    def round_trip() -> int:
        for name in names:
            with person.change():
                person.field(name).check()
        return person.page.evaluate(count)

    round_trip()
    before = round_trip()
    for _ in range(5):
        after = round_trip()
    assert after <= before + 20
