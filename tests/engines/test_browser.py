"""What people see: the report and MLflow in a headless Chromium, after the miniature pipeline.

Needs Chromium from the distribution (Debian: apt install chromium). Pictures of what was seen are left in screenshots/.
"""

import re
import shutil
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pandas as pd
import pytest
from engine_project import ROOT
from playwright.sync_api import expect, sync_playwright
from ports import free_port

CHROMIUM = shutil.which("chromium") or ""
SCREENSHOTS = ROOT / "screenshots"
PATIENCE = 60_000  # milliseconds
COLOURS = """image => {
    const canvas = document.createElement("canvas"), [width, height] = [image.naturalWidth, image.naturalHeight];
    Object.assign(canvas, {width, height});
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return new Set(new Uint32Array(context.getImageData(0, 0, width, height).data.buffer)).size;
}"""

expect.set_options(timeout=PATIENCE)
pytestmark = pytest.mark.skipif(
    CHROMIUM == "" or CHROMIUM.startswith("/snap/"),  # a snap cannot open files in /tmp
    reason="no Chromium from the distribution (apt install chromium)",
)


class Seen:
    """A page, where its requests went, and what it complained of."""

    def __init__(self, page):
        self.page, self.requests, self.complaints = page, [], []
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda websocket: self.requests.append(websocket.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda line: self.complaints.append(line.text) if line.type == "error" else None)

    def keep(self, name, **options):
        SCREENSHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", **options)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM)
        yield started
        started.close()


@pytest.fixture
def seen(browser):
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    yield Seen(page)
    page.close()


@pytest.fixture(scope="module")
def report(by_snakemake):
    return by_snakemake.root / "results" / "report.html"


@pytest.fixture(scope="module")
def link(by_snakemake):
    """What `xkd ui` prints, while it runs."""
    port = free_port()
    command = [sys.executable, "-m", "xkd", "ui", "--port", str(port)]
    log = by_snakemake.root / "ui.log"
    with open(log, "w") as out:
        server = subprocess.Popen(command, cwd=by_snakemake.root, env=by_snakemake.env, stdout=out, stderr=out)
    try:
        _until_it_listens(port, server, log)
        yield re.search(r"^Open (\S+)$", log.read_text(), re.MULTILINE)[1]
    finally:
        server.terminate()
        server.wait(timeout=30)


def _until_it_listens(port, server, log):
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert server.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(f"nothing listens on port {port}: {log.read_text()}")


def table(project):
    return pd.read_csv(project.root / "results" / "table.csv").set_index("ablation")


def test_the_report_is_rendered_from_one_file(seen, report, by_snakemake):
    seen.page.goto(report.as_uri())
    assert [url for url in seen.requests if not url.startswith("data:")] == [report.as_uri()]
    rows = {
        row.split()[0]: row for row in seen.page.locator("#table table").first.locator("tbody tr").all_inner_texts()
    }
    for name, figures in table(by_snakemake).iterrows():
        for column in ("student.video.linear", "student.audio.linear", "student.video.finetune"):
            if pd.notna(figures[f"{column}.mean"]):
                assert f"{figures[f'{column}.mean']:.1f}" in rows[name]
    assert len(rows) == 2
    seen.keep("report", full_page=True)
    assert not seen.complaints


def test_every_picture_of_the_report_is_drawn_and_described(seen, report):
    seen.page.goto(report.as_uri())
    images = seen.page.locator("img").all()
    assert len(seen.page.locator("figure img").all()) == 11
    assert len(images) > 20
    for image in images:
        box = image.bounding_box()
        assert min(box["width"], box["height"]) > 20
        description = image.get_attribute("alt")
        assert description
        assert image.evaluate(COLOURS) > 20, description
    for sound in seen.page.locator("audio").all():
        seen.page.wait_for_function("sound => sound.duration > 0.2", arg=sound.element_handle())
    assert not seen.complaints


def _first_title_whose_cells_differ(table):
    """Returns a title and its place: sorting shows only where figures differ, and those of the miniature may not."""
    titles = table.locator("thead th").all()
    for place, title in enumerate(titles[1:], start=1):
        cells = table.locator(f"tbody tr td:nth-child({place + 1})").all_inner_texts()
        figures = [re.search(r"[\d.]+", cell) for cell in cells]
        if all(figures) and len({figure[0] for figure in figures}) == len(cells):
            return title, place
    raise AssertionError("no column whose cells differ")


def test_a_click_on_a_title_sorts_the_table(seen, report):
    seen.page.goto(report.as_uri())
    shown = seen.page.locator("#table table").first
    title, place = _first_title_whose_cells_differ(shown)
    orders = []
    for _ in range(2):
        title.click()
        cells = shown.locator(f"tbody tr td:nth-child({place + 1})").all_inner_texts()
        orders.append([float(re.search(r"[\d.]+", cell)[0]) for cell in cells])
    assert orders[0] == orders[1][::-1]
    assert sorted(orders[0]) in orders
    assert orders[0] != orders[1]


def test_the_report_fits_a_phone(seen, report):
    seen.page.set_viewport_size({"width": 400, "height": 800})
    seen.page.goto(report.as_uri())
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 400
    seen.keep("report-phone")


def test_the_link_of_the_ui_lands_on_the_table_of_runs(seen, link, by_snakemake):
    seen.page.goto(link)
    for name in ("ae", "xkd"):
        expect(seen.page.get_by_text(f"Group: {name}", exact=True)).to_be_visible()
    figures = table(by_snakemake)["student.audio.linear.mean"]
    for value in figures:
        expect(seen.page.get_by_text(f"{value:g} (average)", exact=True).first).to_be_visible()
    expect(seen.page.get_by_text("student.audio.linear", exact=True).first).to_be_visible()
    seen.keep("mlflow-runs")
    assert _hosts(seen) == {urlsplit(link).netloc}


def test_a_link_of_the_report_lands_on_curves_and_pictures_of_a_run(seen, link, report):
    seen.page.goto(report.as_uri())
    written = seen.page.locator("#mlflow dt", has_text="xkd").locator("+ dd a").get_attribute("href")
    assert urlsplit(written).netloc == "127.0.0.1:5000", "where `make ui` listens"
    seen.page.goto(written.replace("127.0.0.1:5000", urlsplit(link).netloc))
    expect(seen.page.get_by_role("heading", name="xkd seed 0")).to_be_visible()
    expect(seen.page.get_by_text("Evaluation runs")).to_have_count(0)  # of MLflow's other product
    seen.page.get_by_role("tab", name="Model metrics").click()
    chart = seen.page.locator(".js-plotly-plot .scatterlayer path.js-line").first
    expect(chart).to_be_visible()
    assert min(chart.bounding_box()[side] for side in ("width", "height")) > 20
    seen.keep("mlflow-curves")
    seen.page.get_by_role("tab", name="Artifacts").click()
    seen.page.get_by_text("samples.png", exact=True).click()
    picture = seen.page.locator("img[src*='samples.png'], img[src^='blob:']").first
    expect(picture).to_be_visible()
    assert picture.evaluate(COLOURS) > 1000
    seen.keep("mlflow-pictures")
    assert _hosts(seen) == {urlsplit(link).netloc}


def _hosts(seen):
    """Where requests went; files and what a page carries itself are no requests."""
    return {urlsplit(url).netloc for url in seen.requests if urlsplit(url).scheme not in ("file", "data", "blob")}
