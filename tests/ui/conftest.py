"""One app for the session, one browser, one context a test, and no silent page error."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 60_000  # milliseconds; only a hang or a first compilation waits so long


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="session")
def address(tmp_path_factory) -> Iterator[str]:
    """The app, served from this process."""
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("gradio"))
    from porting.ui.page import build, launch

    demo = build()
    _, url, _ = launch(
        demo,
        prevent_thread_lock=True,
        quiet=True,
        server_name="127.0.0.1",
        server_port=free_port(),
    )
    yield url.rstrip("/")
    demo.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield launched
        launched.close()


class Visitor:
    """A person at the page: what a test reads and does, in the words of the page."""

    def __init__(self, page: Page, address: str, tab: str) -> None:
        self.page, self.address = page, address
        self.lens = page.locator(f"#{tab}-lens .pl-lens")

    def open(self, query: str = "") -> "Visitor":
        self.page.goto(f"{self.address}/?{query}")
        self.page.wait_for_function("window.portlensSettled === true", timeout=PATIENCE)
        self.lens.and_(self.page.locator(":not([data-n='0'])")).wait_for(timeout=PATIENCE)
        return self

    @property
    def drawn(self) -> int:
        """How often the lens was drawn."""
        return int(self.lens.get_attribute("data-n") or 0)

    @contextmanager
    def change(self) -> Iterator[None]:
        """Wait until what the block does is painted."""
        before = self.drawn
        yield
        handle = self.lens.element_handle()
        self.page.wait_for_function(
            "([lens, n]) => +lens.dataset.n > n", arg=[handle, before], timeout=PATIENCE
        )

    def see(self, title: str) -> None:
        """Wait for a verdict of this title."""
        self.lens.locator(".pl-title", has_text=title).wait_for(timeout=PATIENCE)

    @property
    def verdict(self) -> str:
        return self.lens.locator(".pl-verdict").inner_text()

    def fill(self, label: str, value: Any) -> None:
        """Type into a field of this tab and leave it."""
        field = self.field(label)
        field.fill(str(value))
        field.press("Tab")

    def field(self, label: str) -> Locator:
        return self.tab.get_by_label(label, exact=True)

    @property
    def tab(self) -> Locator:
        return self.page.locator(".pl-tab", has=self.lens)

    def plot(self, key: str) -> Locator:
        return self.lens.locator(f".pl-plot[data-key='{key}']")

    def marks(self, key: str, kind: str) -> int:
        return self.plot(key).locator(f".pl-{kind}").count()

    def cell(self, key: str, row: int, column: int) -> tuple[float, float]:
        """The middle of a cell on the screen."""
        return tuple(
            self.plot(key).evaluate(
                """(plot, [row, column]) => {
                  const chart = plot.querySelector('.js-plotly-plot'), { xaxis, yaxis } = chart._fullLayout;
                  const box = chart.getBoundingClientRect();
                  return [box.left + xaxis._offset + xaxis.d2p(column), box.top + yaxis._offset + yaxis.d2p(row)];
                }""",
                [row, column],
            )
        )

    def point(self, key: str, row: int, column: int) -> None:
        self.plot(key).scroll_into_view_if_needed()
        self.page.mouse.move(*self.cell(key, row, column))

    @property
    def readout(self) -> str:
        return self.lens.locator(".pl-readout").inner_text()


@pytest.fixture
def visit(address: str, browser: Browser) -> Iterator[Callable[..., Visitor]]:
    """Opens the page; at the end of the test no page error and no foreign request remains."""
    wrong: list[str] = []
    contexts = []

    def opened(query: str = "", tab: str = "dense", **options: Any) -> Visitor:
        settings = {"viewport": {"width": 1440, "height": 900}, "reduced_motion": "reduce"}
        context = browser.new_context(**settings | options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: wrong.append(f"page error: {error}"))
        page.on(
            "console", lambda m: wrong.append(f"console: {m.text}") if m.type == "error" else None
        )
        page.on("request", lambda r: note_foreign(r.url))
        return Visitor(page, address, tab).open(query)

    def note_foreign(url: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            wrong.append(f"foreign request: {url}")

    yield opened
    for context in contexts:
        context.close()
    assert not wrong
