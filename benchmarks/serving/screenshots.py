"""``python -m benchmarks.serving.screenshots URL OUT.png``: a picture of the page of a server that runs, for the docs.

Needs playwright and a Chromium (Debian's ``chromium``).
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("url", help="of the server")
    add("out", type=Path, help="the PNG to write")
    add("--index", help="its name; the first one if left out")
    add("--query", default="", help="words to ask for")
    add("--picture", type=Path, help="a picture to ask with")
    add("--hits", type=int, default=3)
    add("--point", metavar="SELECTOR", help="what to point at, such as '.chip >> nth=0'")
    add("--size", type=int, nargs=2, default=(880, 900), metavar=("WIDTH", "HEIGHT"))
    options = parser.parse_args()
    width, height = options.size
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
        take(page, options)
        page.screenshot(path=options.out)
        browser.close()


def take(page, options):
    """Asks, and waits until all pictures are there."""
    page.goto(options.url)
    page.locator("#about", has_text="documents").wait_for()
    if options.index:
        page.select_option("#index", options.index)
    page.fill("#query", options.query)
    page.fill("#k", str(options.hits))
    if options.picture:
        page.set_input_files("#picture", options.picture)
        page.wait_for_selector("#preview:visible")
    page.click("#search")
    page.locator("#status", has_text="hit").wait_for(timeout=120_000)
    page.locator("main figure img").evaluate_all(
        "all => Promise.all(all.map((one) => { one.loading = 'eager'; return one.src && one.decode(); }))"
    )
    if options.point:
        page.hover(options.point)


if __name__ == "__main__":
    main()
