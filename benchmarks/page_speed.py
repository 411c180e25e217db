"""How fast a page opens and writes in Chromium: ``python benchmarks/page_speed.py --model DIR``."""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from chromium import chromium, open_page, resize, why_not

from charlm_fast.page.__main__ import main as write_page

ROUNDS = 5
ENGINE = """
const [compiled, count] = arguments, data = JSON.parse(byId("data").textContent);
const engine = new Engine(data.model, compiled), prime = [0];
const settings = {temperature: 0.8, topK: 0, topP: 1, minP: 0, seed: splitSeed(1), row: 0};
const writer = new Writer(engine, prime, settings), start = performance.now();
for (let k = 0; k < count; k++) writer.next();
return (1000 * count) / (performance.now() - start);
"""
DRAWN = """
const [length, done] = arguments;
byId("length").value = length;
document.querySelector("#write-form .main").click();
const says = byId("write-says"), stop = byId("stop");
const look = () => (stop.disabled ? done(says.textContent) : setTimeout(look, 5));
look();
"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, metavar="DIR", help="a saved model")
    parser.add_argument("--characters", type=int, default=10_000, help="to write (10,000)")
    return parser.parse_args()


def processor_seconds(driver: Any) -> float:
    """CPU time of the page's process: it tells more than a clock where others compute as well."""
    metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return next(m["value"] for m in metrics if m["name"] == "ProcessTime")


def show(name: str, values: list[float], unit: str) -> None:
    low, middle, high = min(values), statistics.median(values), max(values)
    print(f"{name}: {middle:,.0f} {unit} ({low:,.0f} to {high:,.0f}, {len(values)} times)")


def rates(driver: Any, count: int, write: Callable[[], float]) -> None:
    """Show how many characters a second of the clock, and of the CPU, ``write`` makes."""
    by_clock, by_processor = [], []
    for _ in range(ROUNDS):
        start = processor_seconds(driver)
        by_clock.append(write())
        by_processor.append(count / (processor_seconds(driver) - start))
    show("  by the clock", by_clock, "characters/s")
    show("  by CPU time, all of the page's threads", by_processor, "characters/s")


def main() -> int:
    arguments = parse()
    if reason := why_not():
        sys.exit(f"error: {reason}")
    count = arguments.characters
    with TemporaryDirectory() as folder, chromium() as driver:
        path = Path(folder) / "page.html"
        write_page(["--model", arguments.model, "--out", str(path)])
        print(driver.capabilities["browserName"], driver.capabilities["browserVersion"])
        driver.set_script_timeout(120)
        driver.execute_cdp_cmd("Performance.enable", {})
        resize(driver, 1100, 900)
        show("opens in", [open_page(driver, path) for _ in range(ROUNDS)], "ms")
        for name, compiled in (("WebAssembly", True), ("JavaScript alone", False)):
            print(f"writes, undrawn, {name}")
            rates(driver, count, functools.partial(driver.execute_script, ENGINE, compiled, count))

        def drawn() -> float:
            said = driver.execute_async_script(DRAWN, count)
            return float(said.split(" written, ")[1].split(" ")[0].replace(",", ""))

        print("writes, each character drawn on the page")
        rates(driver, count, drawn)
    return 0


if __name__ == "__main__":
    sys.exit(main())
