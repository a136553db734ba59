"""The tab *Layer zoo*, driven in a browser as a person drives it."""

import pytest

from porting.layers import LAYERS


@pytest.fixture
def zoo(visit):
    """Opens the tab by its link."""
    return lambda query="", **options: visit(f"tab=zoo&{query}", tab="zoo", **options)


def choose(person, label: str, option: str) -> None:
    with person.change():
        person.field(label).click()
        person.page.get_by_role("option", name=option, exact=True).click()


def options(person):
    """The field of the options; its label holds a hint as well."""
    return person.tab.locator("textarea")


def test_it_opens_on_a_silent_fault_with_its_menus_filled(zoo):
    person = zoo()
    person.see("Silent wrong layout")
    assert person.field("Leaf in the picture").input_value() == "params/kernel"
    person.point("source", 1, 2)
    assert person.readout.startswith("source[0, 0, 1, 2] = flat[5] → ")
    assert person.marks("ported", "same") == person.marks("needed", "same") == 1
    with person.change():
        person.lens.get_by_role("button", name="Do it right").click()
    person.see("Exact")
    assert person.field("What goes wrong").input_value() == "None: the right port"


def test_another_layer_brings_its_own_options_faults_and_leaves(zoo):
    person = zoo("probe=constant_image")
    choose(person, "Layer", f"LSTM  ({LAYERS['LSTM'].family})")
    person.see("Exact")
    assert "hidden_size" in options(person).input_value()
    assert person.field("Probe: what it runs on").input_value() == "Random normal"
    rows = person.lens.locator("tr[data-key]")
    with person.change():
        rows.nth(4).press("Enter")
    assert rows.nth(4).get_attribute("aria-selected") == "true"
    assert person.field("Leaf in the picture").input_value() == rows.nth(4).get_attribute(
        "data-key"
    )


def test_a_layer_without_leaves_and_the_check_that_is_asked(zoo):
    person = zoo("layer=GELU&fault=tanh_gelu&check=sums")
    assert "This layer has no leaves" in person.lens.inner_text()
    assert "The check that you asked" in person.lens.inner_text()
    assert person.plot("output").is_visible()


def test_a_wrong_option_is_explained_and_the_picture_stays(zoo):
    person = zoo()
    for text, words in (("stride=", "options cannot be read"), ("no_such=1", "no_such")):
        with person.change():
            options(person).fill(text)
            options(person).press("Tab")
        person.see("Not possible")
        assert words in person.verdict
        assert person.plot("needed").is_visible()


def test_a_link_opens_on_the_same_view(zoo):
    query = "layer=Linear&options=in_features%3D5%2C+out_features%3D3&fault=&leaf=params%2Fbias"
    person = zoo(query)
    person.see("Exact")
    assert options(person).input_value() == "in_features=5, out_features=3"
    assert person.field("Leaf in the picture").input_value() == "params/bias"
    assert query in person.page.url


@pytest.mark.parametrize("query", ["layer=<b>&fault=x&probe=y", "seed=-3", "options=" + "(" * 300])
def test_a_spoilt_link_still_opens(zoo, query):
    assert zoo(query).lens.locator(".pl-verdict").is_visible()


def test_a_phone_sees_the_pictures_before_the_controls(zoo):
    person = zoo(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    controls = person.tab.locator(".pl-controls").bounding_box()["y"]
    assert person.plot("needed").bounding_box()["y"] < controls
    assert person.page.evaluate("document.documentElement.scrollWidth") <= 390
