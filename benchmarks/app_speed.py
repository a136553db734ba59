"""How fast the page is: start, first picture, a change, memory, and fifty visitors at once.

    python benchmarks/app_speed.py                    # everything, a few minutes
    python benchmarks/app_speed.py --only change      # one part

Needs Chromium and `requirements-test.txt`. Run it on an idle machine: every number is wall
time. The page is measured beside an empty Gradio app on the same machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EMPTY = """\
import gradio as gr
with gr.Blocks(analytics_enabled=False) as demo:
    count, button = gr.HTML("0", elem_id="count"), gr.Button("more")
    button.click(lambda n: str(int(n) + 1), count, count, show_progress="hidden")
demo.launch(quiet=True, run_history=False, ssr_mode=False)
"""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
PORTS = ("transpose", "untransposed", "reshape", "fortran")
QUERY = "tab=dense&in_dim=16&features=16&n=16"
LENS = "#dense-lens .pl-lens"

#: Click, then wait for the mark of a finished drawing and for the frame that shows it.
CLICK_TO_PAINTED = """async ([clicked, watched, attribute]) => {
  const node = document.querySelector(watched), start = performance.now();
  const done = new Promise((resolve) => new MutationObserver((_, o) => { o.disconnect(); resolve(); })
    .observe(node, attribute ? { attributes: true, attributeFilter: [attribute] }
                             : { childList: true, characterData: true, subtree: true }));
  document.querySelector(clicked).click();
  await done;
  await new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)));
  return performance.now() - start;
}"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def served(command: list[str]) -> Iterator[tuple[str, float]]:
    """An app in a process of its own: its address and the seconds to its first 200."""
    port = free_port()
    environment = os.environ | {
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_ANALYTICS_ENABLED": "False",
    }
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        while process.poll() is None and time.perf_counter() - start < 120:
            try:
                urllib.request.urlopen(address, timeout=30).read(1)
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.02)
        yield address, time.perf_counter() - start
    finally:
        process.terminate()
        process.wait(20)


def commands(folder: str) -> dict[str, list[str]]:
    empty = Path(folder) / "empty.py"
    empty.write_text(EMPTY)
    return {"empty": [sys.executable, str(empty)], "app": [sys.executable, "app.py"]}


def start_times(folder: str, runs: int) -> dict[str, float]:
    """Median seconds to the first 200, the two apps in turn."""
    times: dict[str, list[float]] = {"empty": [], "app": []}
    for _ in range(runs):
        for name, command in commands(folder).items():
            with served(command) as (_, seconds):
                times[name].append(seconds)
    return {name: statistics.median(found) for name, found in times.items()}


@contextmanager
def page_at(address: str, query: str = "") -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    found = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(60_000)
        page.goto(f"{address}/?{query}")
        yield page
        browser.close()


def first_heatmap(address: str) -> float:
    """Seconds from navigation to the first heatmap that is drawn, in a browser with no cache."""
    with page_at(address) as page:
        drawn = f"document.querySelector('{LENS} .heatmaplayer image') && performance.now()"
        return page.wait_for_function(drawn, polling="raf").json_value() / 1000


def ready(page: Any) -> None:
    page.wait_for_selector(f"{LENS}:not([data-n='0'])")
    page.wait_for_function("window.portlensSettled === true")
    page.wait_for_timeout(500)


def change_times(address: str, count: int) -> list[float]:
    """Milliseconds from choosing another port to the painted pictures, at 16 × 16."""
    with page_at(address, QUERY) as page:
        ready(page)
        return sorted(one_change(page, k) for k in range(count))


def one_change(page: Any, k: int) -> float:
    choice = f".pl-controls input[value='{PORTS[k % len(PORTS)]}']"
    return page.evaluate(CLICK_TO_PAINTED, [choice, LENS, "data-n"])


def round_trips(address: str, count: int) -> list[float]:
    """Milliseconds of a click that does nothing, in the empty app."""
    with page_at(address) as page:
        page.wait_for_selector("#count")
        page.wait_for_timeout(1000)
        return sorted(
            page.evaluate(CLICK_TO_PAINTED, ["button.lg", "#count", ""]) for _ in range(count)
        )


def growth(address: str, updates: int) -> dict[str, tuple[float, float]]:
    """DOM nodes, listeners and JS heap (MB) before and after many updates."""
    with page_at(address, QUERY) as page:
        ready(page)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")

        def metrics() -> dict[str, float]:
            session.send("HeapProfiler.collectGarbage")
            found = {
                m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]
            }
            elements = page.evaluate("document.getElementsByTagName('*').length")
            return {
                "elements on the page": elements,
                "DOM nodes": found["Nodes"],
                "listeners": found["JSEventListeners"],
                "JS heap, MB": found["JSHeapUsedSize"] / 2**20,
            }

        for k in range(2 * len(PORTS)):
            one_change(page, k)
        before = metrics()
        for k in range(updates):
            one_change(page, k)
        after = metrics()
    return {name: (before[name], after[name]) for name in before}


class Visitors:
    """Clients that ask for one Dense view after another, each as soon as it has the last."""

    def __init__(self, address: str, count: int, seconds: float) -> None:
        self.address, self.count, self.seconds = address, count, seconds
        self.times: list[float] = []
        self.errors: list[str] = []
        config = json.load(urllib.request.urlopen(f"{address}/config", timeout=30))
        self.event = next(
            d for d in config["dependencies"]
            if len(d["inputs"]) == 12 and any(kind == "input" for _, kind in d["targets"])
        )  # fmt: skip

    def run(self) -> None:
        until = time.perf_counter() + self.seconds
        threads = [threading.Thread(target=self.loop, args=(k, until)) for k in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def loop(self, k: int, until: float) -> None:
        import httpx

        with httpx.Client(base_url=f"{self.address}/gradio_api", timeout=60) as http:
            turn = 0
            while time.perf_counter() < until:
                start = time.perf_counter()
                try:
                    self.ask(http, f"visitor{k}turn{turn}", PORTS[(k + turn) % len(PORTS)], k)
                    self.times.append(time.perf_counter() - start)
                except (httpx.HTTPError, ValueError, KeyError) as error:
                    self.errors.append(f"{type(error).__name__}: {error}"[:200])
                turn += 1

    def ask(self, http: Any, session: str, port: str, seed: int) -> None:
        data = [port, "random", 16, 16, 16, 0, seed, "mtcnn_rnet:dense4.weight", None, None, "", ""]
        body = {"data": data, "fn_index": self.event["id"], "session_hash": session}
        http.post("/queue/join", json=body).raise_for_status()
        with http.stream("GET", "/queue/data", params={"session_hash": session}) as stream:
            for line in stream.iter_lines():
                message = json.loads(line[5:]) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    if not message["success"] or "error" in json.loads(
                        message["output"]["data"][0]
                    ):
                        raise ValueError(message["output"])
                    return
        raise ValueError("the stream ended early")


def percentile(times: list[float], share: float) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def row(name: str, value: str, aim: str = "") -> None:
    print(f"{name:<42}{value:>24}   {aim}", flush=True)


def report_start(folder: str, runs: int) -> None:
    times = start_times(folder, runs)
    row("first 200, empty Gradio app", f"{times['empty']:.2f} s")
    ratio = times["app"] / times["empty"]
    row("first 200", f"{times['app']:.2f} s = {ratio:.2f} ×", "at most 1.5 × the empty app")


def report_page(address: str, updates: int, count: int, parts: set[str]) -> None:
    if "first" in parts:
        first = statistics.median(first_heatmap(address) for _ in range(3))
        row("first heatmap after navigation", f"{first:.2f} s", "at most 2 s")
    if "change" in parts:
        times = change_times(address, count)
        found = f"{percentile(times, 0.5):.0f} / {percentile(times, 0.95):.0f} ms"
        row("change to painted at 16 × 16, p50 / p95", found, "p50 under 150 ms")
    if "growth" in parts:
        for name, (before, after) in growth(address, updates).items():
            row(f"{name}, over {updates} updates", f"{before:,.1f} -> {after:,.1f}", "flat")


def report_visitors(address: str, clients: int, seconds: float) -> None:
    visitors = Visitors(address, clients, seconds)
    visitors.run()
    p50, p95 = (percentile(visitors.times, share) for share in (0.5, 0.95))
    rate = len(visitors.times) / seconds
    row(f"{clients} clients, p50 / p95", f"{p50:.2f} / {p95:.2f} s")
    row(f"{clients} clients, answers a second", f"{rate:.0f}")
    row(f"{clients} clients, errors", str(len(visitors.errors)), "none")
    for error in visitors.errors[:3]:
        print(f"    {error}")


def main() -> None:
    parts = ("start", "trip", "first", "change", "growth", "clients")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=parts, default=parts)
    parser.add_argument("--runs", type=int, default=3, help="starts of each app")
    parser.add_argument("--changes", type=int, default=60)
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=15)
    asked = parser.parse_args()
    chosen = set(asked.only)
    with tempfile.TemporaryDirectory() as folder:
        if "start" in chosen:
            report_start(folder, asked.runs)
        if "trip" in chosen:
            with served(commands(folder)["empty"]) as (address, _):
                times = round_trips(address, asked.changes)
                row("empty round trip, p50 / p95", f"{percentile(times, 0.5):.0f} / {percentile(times, 0.95):.0f} ms")  # fmt: skip
        if chosen & {"first", "change", "growth", "clients"}:
            with served(commands(folder)["app"]) as (address, _):
                report_page(address, asked.updates, asked.changes, chosen)
                if "clients" in chosen:
                    report_visitors(address, asked.clients, asked.seconds)


if __name__ == "__main__":
    main()
