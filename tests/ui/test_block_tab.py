"""The tab *Encoder block*, driven in a browser as a person drives it."""

import pytest

from porting.block_case import BlockCase
from porting.block_faults import BLOCK_FAULTS
from porting.block_result import faults_for, run_block


@pytest.fixture
def block(visit):
    """Opens the tab by its link."""
    return lambda query="", **options: visit(f"tab=block&{query}", tab="block", **options)


def choose(person, label: str, option: str) -> None:
    with person.change():
        person.field(label).click()
        person.page.get_by_role("option", name=option, exact=True).click()


def rows(person, block: str):
    table = person.lens.locator(".pl-block", has=person.page.locator("h3", has_text=block))
    return table.locator("tbody tr")


def test_the_tab_fills_when_it_is_opened(visit):
    person = visit()
    person.page.get_by_role("tab", name="Encoder block").click()
    there = type(person)(person.page, person.address, "block")
    there.see("Silent wrong layout")
    person.page.wait_for_function("location.search.includes('tab=block')")
    person.page.get_by_role("tab", name="Dense load").click()
    person.see("Silent wrong layout")
    person.page.wait_for_function("location.search.includes('tab=dense')")


def test_it_opens_on_a_fault_that_the_sums_do_not_see(block):
    person = block()
    assert "Silent wrong layout" in person.verdict
    assert "Sums agree\nyes" in person.lens.inner_text()
    assert "Outputs agree with the source\nno" in person.lens.inner_text()
    assert person.lens.get_by_text("The sums agree").is_visible()


def test_the_first_stage_that_diverges_is_marked(block):
    person = block("fault=qk_exchanged")
    chart = person.lens.locator(".js-plotly-plot", has_text="ln1").first
    assert "starts here" in chart.inner_text()


def test_do_it_right(block):
    person = block()
    with person.change():
        person.lens.get_by_role("button", name="Do it right").click()
    person.see("Exact")
    assert rows(person, "The mapping table").count() == 16
    assert person.lens.locator(".pl-status-wrong", has_text="other numbers").count() == 0


@pytest.mark.parametrize("source", ["torch-init", "linen-init", "m6aformer"])
def test_every_fault_has_the_verdict_of_the_engine(block, source):
    person = block(f"source={source}&fault=&randomise=1")
    for fault in faults_for(BlockCase(source=source)):
        choose(person, "What goes wrong", BLOCK_FAULTS[fault.name].title)
        case = BlockCase(source=source, fault=fault.name, randomise=True)
        person.see(run_block(case).verdict.title)
        assert "Exact" not in person.verdict, fault.name


def test_a_fresh_init_hides_what_randomised_leaves_show(block):
    hidden = next(
        f.name
        for f in faults_for(BlockCase(source="torch-init"))
        if run_block(BlockCase(source="torch-init", fault=f.name)).verdict.kind == "unsure"
        and run_block(BlockCase(source="torch-init", fault=f.name, randomise=True)).verdict.kind
        != "unsure"
    )
    person = block(f"fault={hidden}")
    assert "Cannot tell" in person.verdict
    with person.change():
        person.lens.get_by_role("button", name="Randomise every leaf").click()
    assert "Cannot tell" not in person.verdict
    assert "Exact" not in person.verdict
    assert person.tab.get_by_label("Randomise every leaf").is_checked()


def test_choosing_a_leaf_shows_it_before_and_after(block):
    person = block("fault=")
    with person.change():
        person.lens.locator("tr[data-key='params/ff1/kernel']").click()
    panels = person.lens.locator(".pl-panel .pl-plot")
    assert panels.count() >= 2
    assert (
        person.lens.locator("tr[data-key='params/ff1/kernel']").get_attribute("aria-selected")
        == "true"
    )
    assert "leaf=params" in person.page.url
    first = panels.first.get_attribute("data-key")
    person.point(first, 2, 4)
    assert person.lens.locator(".pl-same").count() >= 1
    with person.change():
        person.lens.locator("tr[data-key='params/ln2/scale']").press("Enter")
    assert (
        person.lens.locator("tr[data-key='params/ln2/scale']").get_attribute("aria-selected")
        == "true"
    )


def test_only_what_is_not_right(block):
    person = block("fault=qk_exchanged&randomise=1")
    table = person.lens.locator(
        ".pl-block", has=person.page.locator("h3", has_text="The mapping table")
    )
    table.get_by_label("Only what is not right").check()
    wrong = [
        r.path
        for r in run_block(
            BlockCase(source="torch-init", fault="qk_exchanged", randomise=True)
        ).rows
        if not r.same
    ]
    assert rows(person, "The mapping table").count() == len(wrong)


def test_the_table_of_what_no_check_sees_opens_its_cases(block):
    person = block("fault=")
    key = rows(person, "What each check cannot see").first.get_attribute("data-key")
    with person.change():
        rows(person, "What each check cannot see").first.click()
    assert f"fault={key}" in person.page.url


def test_a_link_opens_on_the_same_view(block):
    first = block(
        "fault=qk_exchanged&randomise=1&length=3&d_model=14&num_heads=7&d_ff=11&seed=2&data_seed=5&source=linen-init"
    )
    second = block(first.page.url.partition("?")[2].removeprefix("tab=block&"))
    assert second.verdict == first.verdict
    for label, value in (
        ("T", "3"),
        ("d_model", "14"),
        ("num_heads", "7"),
        ("d_ff", "11"),
        ("init seed", "2"),
    ):
        assert second.field(label).input_value() == value
    assert second.tab.get_by_label("Randomise every leaf").is_checked()


@pytest.mark.parametrize(
    ("label", "value", "words"),
    [
        ("num_heads", 3, "d_model"),
        ("T", 0, "T = 0 is not a size."),
        ("d_ff", 10**6, "d_ff = 1,000,000 is larger than the limit"),
    ],
)
def test_a_wrong_size_is_explained_and_the_picture_stays(block, label, value, words):
    person = block()
    with person.change():
        person.fill(label, value)
    person.see("Not possible")
    assert words in person.verdict
    assert rows(person, "The mapping table").count() == 16
    # The same message again changes nothing on the page; choosing a leaf must not break it.
    with person.page.expect_response(lambda r: "/queue/" in r.url):
        person.lens.locator("tr[data-key='params/ff1/kernel']").click()
    person.see("Not possible")


def test_a_trained_layer_brings_its_own_sizes(block):
    person = block("source=m6aformer&fault=")
    person.see("Exact")
    assert not person.field("d_model").is_visible()
    assert person.field("T").is_visible()


@pytest.mark.parametrize(
    "query", ["fault=<b>&source=x&leaf=../x", "d_model=-3", "num_heads=²", "length=99999"]
)
def test_a_spoilt_link_still_opens(block, query):
    assert block(query).lens.locator(".pl-verdict").is_visible()


def test_dark_mode(block):
    grounds = [
        block(f"__theme={theme}").page.evaluate(
            "getComputedStyle(document.querySelector('.gradio-container')).backgroundColor"
        )
        for theme in ("light", "dark")
    ]
    assert grounds == ["rgb(251, 252, 252)", "rgb(16, 22, 28)"]


def test_a_phone_sees_the_verdict_before_the_controls(block):
    person = block(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    verdict = person.lens.locator(".pl-verdict").bounding_box()["y"]
    assert verdict < person.tab.locator(".pl-controls").bounding_box()["y"]
    assert person.page.evaluate("document.documentElement.scrollWidth") <= 390
