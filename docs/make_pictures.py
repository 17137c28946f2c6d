"""Make the picture of README.md of the report in docs/results/.

python docs/make_pictures.py

Needs the extra `browser` and a Chromium, as the tests of pages do.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from irtools.report.document import Report
from irtools.report.page import report_page

DOCS = Path(__file__).parent
WIDTH, HEIGHT = 1260, 1010


def main() -> None:
    """Open the page as a reader does and take its first screen."""
    place = shutil.which("chromium") or shutil.which("chromium-browser")
    assert place is not None, "there is no chromium: apt-get install chromium"
    stored = (DOCS / "results" / "report-minilm.json").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder) / "report.html"
        page.write_text(report_page(Report.from_json(stored)), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=place, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        opened.goto(page.as_uri())
        opened.screenshot(path=DOCS / "pictures" / "report.png")
        browser.close()


if __name__ == "__main__":
    main()
