"""The tab *Which check sees it?*, driven in a browser as a person drives it."""

import pytest

from porting.checks import CHECKS, check_matrix

LINEAR = "target=Linear"


@pytest.fixture
def checks(visit):
    """Opens the tab by its link."""
    return lambda query=LINEAR, **options: visit(f"tab=checks&{query}", tab="checks", **options)


def there(person, tab: str):
    return type(person)(person.page, person.address, tab)


def cells(person):
    return person.lens.locator(".pl-grid button.pl-cell")


def test_every_cell_is_there_with_its_story(checks):
    person = checks()
    matrix = check_matrix("Linear")
    assert cells(person).count() == len(matrix.rows) * len(CHECKS)
    cells(person).last.hover()
    story = matrix.cell(matrix.rows[-1], "leaves").story
    assert story in person.lens.locator(".pl-story").inner_text()
    assert person.lens.locator(".pl-selected").count() == 0


def test_a_cell_is_reached_and_opened_by_the_keyboard(checks):
    person = checks()
    matrix = check_matrix("Linear")
    at = matrix.rows.index("kernel_untransposed") * len(CHECKS) + list(CHECKS).index("sums")
    cells(person).nth(at).focus()
    story = matrix.cell("kernel_untransposed", "sums").story
    assert story in person.lens.locator(".pl-story").inner_text()
    cells(person).nth(at).press("Enter")
    zoo = there(person, "zoo")
    zoo.see("Silent wrong layout")
    assert zoo.field("Ask a check").input_value() == "Sums match"
    assert story in zoo.lens.inner_text()
    person.page.wait_for_function("location.search.includes('fault=kernel_untransposed')")


def test_a_cell_of_the_block_opens_its_tab(checks):
    person = checks("target=EncoderBlock")
    row = person.lens.locator(".pl-grid tr", has_text="q and k exchanged")
    row.locator("button").nth(2).click()
    block = there(person, "block")
    block.see("Silent wrong layout")
    assert block.field("What goes wrong").input_value() == "q and k exchanged"


def test_the_state_of_the_leaves_changes_the_matrix(checks):
    person = checks()
    with person.change():
        person.tab.get_by_label("Every leaf random").check()
    assert "state=random" in person.page.url
    tally = check_matrix("Linear").tally("bound", "random_normal", "random")
    assert f"{tally.caught} of {tally.faults}" in person.lens.locator(".pl-grid-foot").inner_text()


def test_a_probe_that_the_layer_lacks_is_said(checks):
    assert "has no input of this kind" in checks(f"{LINEAR}&probe=odd_size").verdict


def test_a_phone_sees_the_grid_before_the_controls(checks):
    person = checks(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    controls = person.tab.locator(".pl-controls").bounding_box()["y"]
    assert cells(person).first.bounding_box()["y"] < controls
    assert person.page.evaluate("document.documentElement.scrollWidth") <= 390
