"""The README's picture of a page: ``python benchmarks/page_picture.py --model DIR``."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from chromium import chromium, open_page, resize, why_not
from PIL import Image

from charlm_fast.page.__main__ import main as write_page

WRITTEN = "return byId('stop').disabled && byId('written').querySelectorAll('.text span').length"
MOST_BYTES = 200_000
COLOURS = 64  # of the picture, which so takes a third of the bytes


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, metavar="DIR", help="a saved model")
    parser.add_argument("--out", type=Path, default=Path("docs/page.png"), help="(docs/page.png)")
    parser.add_argument("--title", default="A model that writes", help="of the page")
    parser.add_argument("--character", type=int, default=30, help="whose place is shown (30)")
    parser.add_argument("--seed", default="1", help="(1)")
    parser.add_argument("--dark", action="store_true", help="in dark")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    if reason := why_not():
        sys.exit(f"error: {reason}")
    from selenium.webdriver.support.ui import WebDriverWait

    with TemporaryDirectory() as folder, chromium() as driver:
        path = Path(folder) / "page.html"
        write_page(["--model", arguments.model, "--out", str(path), "--title", arguments.title])
        resize(driver, 1000, 1120, arguments.dark)
        open_page(driver, path)
        driver.execute_script(
            "byId('seed').value = arguments[0]; byId('length').value = 900;"
            "document.querySelector('#write-form .main').click();",
            arguments.seed,
        )
        WebDriverWait(driver, 60).until(lambda d: d.execute_script(WRITTEN) > 900)
        driver.execute_script(
            "document.querySelectorAll('#written .text span')[arguments[0]].click();"
            "scrollTo(0, 0);",
            arguments.character,
        )
        picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    picture.quantize(COLOURS).save(arguments.out, optimize=True)
    size = arguments.out.stat().st_size
    print(f"saved: {arguments.out} ({size:,} bytes)")
    if size > MOST_BYTES:
        sys.exit(f"error: the picture is larger than {MOST_BYTES:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
