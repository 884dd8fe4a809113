"""The page in a real browser: no errors, no foreign script, fits a phone, returns the record, readable contrast."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import records
import torch

from gandiag.exhibits.images import image_grid
from gandiag.record import Exhibit
from gandiag.report.comparison import ComparisonReport
from gandiag.report.comparison_html import render_comparison_page
from gandiag.report.html_page import render_html
from gandiag.verdict.compare import check_regression, compare
from gandiag.verdict.limits import Limit

pytestmark = pytest.mark.browser
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if BROWSER is None or DRIVER is None:
        pytest.skip("no Chromium with chromedriver on this machine")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def open_page(browser: Any, folder: Path, name: str, width: int = 1280, scheme: str = "light") -> None:
    path = folder / f"{name}.html"
    path.write_text(render_html(records.ALL[name]()), encoding="utf-8")
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.get(path.as_uri())


@pytest.mark.parametrize("name", ["healthy", "collapsed", "vectors", "degeneracy", "hostile", "bare"])
def test_opens_without_errors_and_fits_a_phone(browser: Any, tmp_path: Path, name: str) -> None:
    open_page(browser, tmp_path, name, width=390)
    assert browser.get_log("browser") == []
    assert browser.execute_script(
        "return [...document.images].every(image => image.complete && image.naturalWidth > 0)"
    )
    wide = """return [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, svg'))
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 90))"""
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    assert browser.execute_script(wide) == []


def test_no_attack_is_executed(browser: Any, tmp_path: Path) -> None:
    open_page(browser, tmp_path, "hostile")
    assert browser.execute_script("return document.images.length") == 0
    assert browser.execute_script("return document.scripts.length") == 2


def test_the_download_is_the_record(browser: Any, tmp_path: Path) -> None:
    open_page(browser, tmp_path, "collapsed")
    link = browser.execute_script(
        "const a = document.getElementById('download'); return [a.hidden, a.download, a.href.slice(0, 5)]"
    )
    assert link == [False, "audit.json", "blob:"]
    text = browser.execute_script("return document.getElementById('record').textContent")
    assert json.loads(text) == json.loads(records.collapsed().to_json())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["healthy", "collapsed", "inconclusive", "degeneracy"])
def test_text_has_enough_contrast(browser: Any, tmp_path: Path, name: str, scheme: str) -> None:
    """WCAG AA: 4.5 to 1, for every element with text of its own.

    Backgrounds may be mixed colors, so they are painted and read back.
    """
    open_page(browser, tmp_path, name, scheme=scheme)
    script = """
    const context = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
    const luminance = (...layers) => {
      for (const color of layers) { context.fillStyle = color; context.fillRect(0, 0, 1, 1); }
      const bytes = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
      const [r, g, b] = bytes.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
      return .2126 * r + .7152 * g + .0722 * b;
    };
    const weak = [];
    for (const element of document.querySelectorAll('main *, footer *')) {
      const hasText = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
      if (element.closest('svg, .unseen') || !hasText) continue;
      const layers = [];
      for (let e = element; e; e = e.parentElement) layers.unshift(getComputedStyle(e).backgroundColor);
      const ground = luminance('white', ...layers);
      const text = luminance('white', ...layers, getComputedStyle(element).color);
      const ratio = (Math.max(ground, text) + .05) / (Math.min(ground, text) + .05);
      if (!(ratio >= 4.5)) weak.push([element.outerHTML.slice(0, 80), ratio]);
    }
    return weak;"""
    assert browser.execute_script(script) == []


def sheet(name: str, columns: int, rows: int, group: int = 0, caption: str = "tiles") -> Exhibit:
    """A sheet of gray tiles, each of its own level."""
    levels = torch.arange(columns * rows).float().div(columns * rows)
    return image_grid(name, caption, levels[:, None, None, None].expand(-1, 1, 16, 16), (0.0, 1.0), columns, group)


def open_sheets(browser: Any, folder: Path) -> None:
    scales = ", ".join(str(scale) for scale in (0.1, 0.5, 1, 2))
    record = dataclasses.replace(
        records.collapsed(),
        exhibits=(
            sheet("scales", 4, 4, caption=f"The same 4 latents at every scale; rows: {scales}"),
            sheet("pairs", 8, 2, group=2),
        ),
    )
    path = folder / "sheets.html"
    path.write_text(render_html(record), encoding="utf-8")
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    browser.get(path.as_uri())


def test_a_slider_shows_the_same_latents_at_one_scale(browser: Any, tmp_path: Path) -> None:
    open_sheets(browser, tmp_path)
    script = """
    const range = document.querySelector('.slider input'), seen = [];
    for (const row of [0, 3]) {
        range.value = row; range.dispatchEvent(new Event('input'));
        const canvas = document.querySelector('.slider canvas');
        const at = x => canvas.getContext('2d').getImageData(x, 48, 1, 1).data[0];
        seen.push([document.querySelector('.slider output').textContent, at(48), at(canvas.width - 48)]);
    }
    return seen"""
    low, high = browser.execute_script(script)
    assert [low[0], high[0]] == ["× 0.1", "× 2"]
    assert low[1:] == [0, 48] and high[1:] == [191, 239]  # levels 0, 3, 12 and 15 of 16


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 7), (0, 4)])
def test_the_tile_under_the_pointer_is_shown_large(browser: Any, tmp_path: Path, row: int, column: int) -> None:
    open_sheets(browser, tmp_path)
    script = """
    const [row, column] = arguments, image = document.querySelector('img[data-exhibit=pairs]');
    image.scrollIntoView({block: 'center'});
    const box = image.getBoundingClientRect();
    const x = (2 + column * 66 + Math.floor(column / 2) * 8 + 32) / image.naturalWidth * box.width;
    const y = (2 + row * 66 + 32) / image.naturalHeight * box.height;
    image.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left + x, clientY: box.top + y}));
    const lens = document.querySelector('.lens');
    return [lens.hidden, lens.dataset.tile, lens.getContext('2d').getImageData(128, 128, 1, 1).data[0]]"""
    assert browser.execute_script(script, row, column) == [
        False,
        f"{row},{column}",
        round((8 * row + column) / 16 * 255),
    ]


def test_tables_are_sorted_and_filtered_and_figures_copied(browser: Any, tmp_path: Path) -> None:
    open_page(browser, tmp_path, "collapsed")
    script = """
    const table = document.querySelector('table.measurements'), bar = table.previousElementSibling;
    const select = bar.querySelector('select'), filter = bar.querySelector('input');
    select.value = '1'; select.dispatchEvent(new Event('change'));
    const values = [...table.tBodies[0].rows].map(row => parseFloat(row.cells[1].textContent.replace(',', '')));
    filter.value = table.tBodies[0].rows[0].querySelector('code').textContent; filter.dispatchEvent(new Event('input'));
    const shown = [...table.tBodies[0].rows].filter(row => !row.hidden).length;
    const button = document.querySelector('figure.chart button'); button.click();
    return [values, shown, table.tBodies[0].rows.length, button.dataset.svg]"""
    values, shown, total, svg = browser.execute_script(script)
    numbers = [value for value in values if value is not None]
    assert numbers == sorted(numbers, reverse=True) and 0 < shown < total
    assert svg.startswith("<svg") and "var(--" not in svg


def test_a_slider_uncovers_the_sheet_before(browser: Any, tmp_path: Path) -> None:
    old, new = (
        dataclasses.replace(records.collapsed(), exhibits=(sheet("samples", 4, 2, caption=name),))
        for name in ("old samples", "new samples")
    )
    comparison = compare(old, new)
    report = ComparisonReport("a.json", "b.json", comparison, check_regression(Limit("score"), None, 0.05))
    path = tmp_path / "compare.html"
    path.write_text(render_comparison_page(report, old, new), encoding="utf-8")
    browser.get_log("browser")  # of the pages before
    browser.get(path.as_uri())
    script = """
    const range = document.querySelector('.versus input'), after = document.querySelectorAll('.versus img')[1];
    range.value = 80; range.dispatchEvent(new Event('input'));
    const boxes = [...document.querySelectorAll('.versus img')].map(image => image.getBoundingClientRect().left);
    return [after.style.clipPath, boxes[0] === boxes[1], document.images.length]"""
    assert browser.execute_script(script) == ["inset(0px 0px 0px 80%)", True, 2]
    assert browser.get_log("browser") == []
