"""The report in headless Chromium: no errors, no requests, every plot drawn, filters and keyboard work."""

from __future__ import annotations

import json
import shutil
import time

import pytest
from report_study import SETTINGS, make_study

from retsam.report import ReportConfig, build_report

selenium = pytest.importorskip("selenium", reason="selenium is not installed (it is one of the development dependencies)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium or chromedriver here (Debian: apt-get install chromium chromium-driver)"
)

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --hide-scrollbars --disable-dev-shm-usage"
).split()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = make_study(tmp_path_factory.mktemp("results") / "made_up", n_subjects=30, n_biomarkers=14)
    build_report(folder, folder / "report.html", ReportConfig(figures=False, gallery_biomarkers=1, gallery_typical=2), SETTINGS)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    downloads = tmp_path_factory.mktemp("downloads")
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}", "--window-size=1400,1000"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    driver.downloads = downloads
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture
def report(browser, page):
    """The page freshly loaded, and its console and network logs from then on."""
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(page.as_uri())
    wait(browser, "return document.documentElement.dataset.ready === 'true'")
    wait(browser, "return [...document.querySelectorAll('figure.fig')].every(f => f.querySelector('.host svg, .host canvas'))")
    return browser


def wait(browser, script, *arguments, seconds=60):
    """Value of a script once it is true."""
    end = time.monotonic() + seconds
    while True:
        value = browser.execute_script(script, *arguments)
        if value:
            return value
        assert time.monotonic() < end, f"never true: {script}"
        time.sleep(0.05)


def choose(browser, figure, key, value):
    browser.execute_script(
        "const s = document.querySelector(arguments[0] + ` [data-filter=${arguments[1]}]`);"
        "s.value = arguments[2]; s.dispatchEvent(new Event(s.tagName === 'INPUT' ? 'input' : 'change', {bubbles: true}))",
        figure, key, value,
    )  # fmt: skip


def points(browser, figure):
    return browser.execute_script("return document.querySelectorAll(arguments[0] + ' .host path.point').length", figure)


def rows(browser, table="#tab-associations_all"):
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0] + ' tbody tr')].map(r => [...r.cells].map(c => c.textContent))", table
    )


def test_no_error_no_request_every_plot_drawn(report, page):
    assert [e for e in report.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []
    messages = [json.loads(e["message"])["message"] for e in report.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert page.as_uri() in sent
    assert [u for u in sent if u != page.as_uri() and not u.startswith(("data:", "blob:", "chrome:"))] == []
    figures = report.execute_script(
        "return [...document.querySelectorAll('figure.fig')].map(f => {const c = f.querySelector('canvas');"
        "return [f.id, f.querySelectorAll('.host svg path.point, .host svg path.line, .host svg rect').length,"
        "c ? new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size : 0]})"
    )
    assert len(figures) == 18
    for name, marks, colours in figures:
        assert marks > 2 or colours > 20, name


def test_nothing_from_the_data_ran(report):
    assert report.execute_script("return window.hacked === undefined && !document.querySelector('img[src=x]')")
    shown = report.execute_script("return document.querySelector('#tab-failed').textContent")
    assert "<img src=x onerror=" in shown and "=HYPERLINK(" in shown


def test_filters_change_what_is_drawn(report):
    everything = points(report, "#fig-volcano")
    families = report.execute_script(
        "return [...document.querySelector('#association-bar [data-filter=family]').options].map(o => o.value)"
    )
    choose(report, "#association-bar", "family", families[1])
    assert 0 < points(report, "#fig-volcano") < everything
    assert {r[1] for r in rows(report)} == {families[1]}
    choose(report, "#association-bar", "family", "")
    name = rows(report)[0][0]
    choose(report, "#association-bar", "query", name)
    assert [r[0] for r in rows(report)] == [name]
    choose(report, "#association-bar", "query", "")
    first = rows(report)
    choose(report, "#association-bar", "outcome", "glaucoma")
    assert rows(report) != first
    choose(report, "#association-bar", "outcome", "sbp")
    label = report.execute_script("return [...document.querySelectorAll('#fig-volcano text.label')].map(t => t.textContent).join()")
    assert "Slope per SD" in label


def test_forest_shows_covariate_sets_beside_each_other(report):
    one = points(report, "#fig-forest")
    choose(report, "#fig-forest", "sets", "all")
    assert points(report, "#fig-forest") > one


def test_a_wild_estimate_does_not_press_the_others_together(report):
    """One of the made-up tests of dr has a log odds ratio of 45; it is told by an arrow at the edge."""
    choose(report, "#association-bar", "outcome", "dr")
    choose(report, "#fig-forest", "top", "1000")
    cells = report.execute_script("return [...document.querySelectorAll('#fig-forest .host text.cell')].map(t => t.textContent)")
    assert any("10" in c and "\u00d7" in c for c in cells), "the wild one is not among the rows"
    ticks = report.execute_script("return [...document.querySelectorAll('#fig-forest .host text.tick')].map(t => t.textContent)")
    assert not any("\u00d7" in t for t in ticks), ticks
    spread = report.execute_script(
        "const x = [...document.querySelectorAll('#fig-forest .host .interval .whisker:first-child')].map(l => l.x2.baseVal.value"
        " - l.x1.baseVal.value); return x.sort((a, b) => a - b)[Math.floor(x.length / 2)]"
    )
    assert spread > 25


def test_a_part_too_small_to_be_shown_is_no_zero(report):
    cells = report.execute_script("return [...document.querySelectorAll('#fig-missingness .host text.cell')].map(t => t.textContent)")
    assert cells and "0.0 %" not in cells
    assert any(c.startswith(("<5", "> ")) for c in cells)


def test_bars_of_grades_are_whole_and_their_legend_names_what_is_drawn(report):
    cells = report.execute_script("return [...document.querySelectorAll('#fig-quality .host text.cell')].map(t => t.textContent)")
    assert cells and set(cells) == {"100.0 %"}
    swatches, bars = report.execute_script(
        "const r = [...document.querySelectorAll('#fig-quality .host rect:not(.row)')]; const of = (f) => [...new Set(r.filter(f).map("
        "e => e.style.fill))].sort().join(); return [of(e => e.height.baseVal.value === 11), of(e => e.height.baseVal.value !== 11)]"
    )
    assert swatches == bars


def test_without_a_curve_quintiles_are_against_the_lowest(report):
    """The curves are taken out of the page's data, its quintiles put in, one with a wide interval, and the page is opened again."""
    labels = "return [...document.querySelectorAll('#fig-shape .host text')].map(t => t.textContent).join('|')"
    assert "against the median" in report.execute_script(labels) and "cubic spline" in report.execute_script(labels)
    report.execute_script(
        "const n = document.getElementById('data-shape'), b = JSON.parse(n.textContent);"
        "b.spline.columns.est = b.spline.columns.est.map(() => null); const q = b.quintiles.columns, each = (f) => q.quintile.map(f);"
        "q.median = each(k => k); q.est = each(k => k / 5); q.lo = each(k => k / 5 - 0.1); q.hi = each(k => k === 5 ? 50 : k / 5 + 0.1);"
        "n.textContent = JSON.stringify(b);"
    )
    source = report.execute_script("return '<!doctype html>' + document.documentElement.outerHTML")
    path = report.downloads / "without_curve.html"
    path.write_text(source, encoding="utf-8")
    report.get(path.as_uri())
    wait(report, "return document.documentElement.dataset.ready === 'true' && document.querySelector('#fig-shape .host svg')")
    shown = report.execute_script(labels)
    path.unlink()
    assert "against the lowest quintile" in shown and "cubic spline" not in shown and "quintiles, 95 % CI" in shown
    assert report.execute_script("return document.querySelectorAll('#fig-shape path.beyond').length") == 1, "an interval leaves the plot"
    assert "No curve could be fitted." in report.execute_script(
        "return [...document.querySelectorAll('#fig-shape .figure-note')].pop().textContent"
    )


def test_names_of_the_heat_map_are_whole_where_there_is_room(report):
    drawn, names = report.execute_script(
        "const f = document.querySelector('#fig-correlation canvas').closest('.fig'); const texts = [];"
        "const was = CanvasRenderingContext2D.prototype.fillText;"
        "CanvasRenderingContext2D.prototype.fillText = function (t, ...rest) { texts.push(t); return was.call(this, t, ...rest); };"
        "f.querySelector('[aria-label=\"Reset zoom\"]').click();"
        "CanvasRenderingContext2D.prototype.fillText = was;"
        "return [texts, [...document.querySelectorAll('#tab-associations_all tbody tr')].map(r => r.cells[0].textContent)]"
    )
    long = [n.split(" ")[0] for n in names if len(n.split(" ")[0]) > 26 and not n.startswith("made_up")]
    assert long and any(n in drawn for n in long)


def test_a_marked_biomarker_is_marked_in_every_plot(report):
    report.execute_script("document.querySelector('#tab-associations_all tbody tr').click()")
    for figure in ("volcano", "manhattan", "qq"):
        assert report.execute_script("return document.querySelectorAll(arguments[0] + ' path.point.chosen').length", f"#fig-{figure}") == 1


def test_tables_sort_and_page(report):
    report.execute_script("document.querySelectorAll('#tab-associations_all thead button')[0].click()")
    names = [r[0] for r in rows(report)]
    assert names == sorted(names, key=str.lower)
    assert report.execute_script("return document.querySelector('#tab-associations_all th').getAttribute('aria-sort')") == "ascending"
    report.execute_script("document.querySelectorAll('#tab-top thead button')[3].click()")
    shown = report.execute_script("return [...document.querySelectorAll('#tab-top tbody tr')].map(r => r.cells[3].textContent)")
    powers = [
        float(
            p.translate(str.maketrans("\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079", "-0123456789")).replace(
                "\u00d710", "e"
            )
        )
        for p in shown
    ]
    assert powers == sorted(powers)


def test_every_control_of_every_figure_works(report):
    count = report.execute_script(
        """let n = 0;
        for (const s of document.querySelectorAll('figure.fig select, #association-bar select'))
          for (const o of [...s.options]) {
            if (![...s.options].includes(o)) continue;
            s.value = o.value; s.dispatchEvent(new Event('change', {bubbles: true})); n += 1;
          }
        for (const b of document.querySelectorAll('figure.fig .tools button[aria-label*=oom]')) { b.click(); n += 1; }
        return n;"""
    )
    assert count > 100
    assert [e for e in report.get_log("browser") if e["level"] == "SEVERE"] == []


def test_zoom_changes_the_axis_and_resets(report):
    ticks = "return [...document.querySelectorAll('#fig-volcano text.tick')].map(t => t.textContent).join()"
    before = report.execute_script(ticks)
    report.execute_script("document.querySelector('#fig-volcano [aria-label=\"Zoom in\"]').click()")
    assert report.execute_script(ticks) != before
    report.execute_script("document.querySelector('#fig-volcano [aria-label=\"Reset zoom\"]').click()")
    assert report.execute_script(ticks) == before


@pytest.mark.parametrize("figure", ["volcano", "forest", "correlation", "missingness", "subgroups"])
def test_plots_are_read_by_keyboard(report, figure):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    report.execute_script("document.querySelector(arguments[0]).focus()", f"#fig-{figure} .host [tabindex='0']")
    ActionChains(report).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).perform()
    spoken = report.execute_script("return document.getElementById('live').textContent")
    assert len(spoken) > 8
    ActionChains(report).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).perform()
    assert report.execute_script("return document.getElementById('live').textContent") != spoken
    ActionChains(report).send_keys(Keys.ESCAPE).perform()
    assert report.execute_script("return (document.querySelector('.tip') || {style: {display: 'none'}}).style.display") == "none"


def test_downloads(report):
    for old in report.downloads.iterdir():
        old.unlink()
    for figure in ("volcano", "correlation"):
        report.execute_script(
            (
                "for (const b of document.querySelectorAll(arguments[0] + ' .tools button')) if (['SVG', 'CSV'].includes(b.textContent)) "
                "b.click()"
            ),
            f"#fig-{figure}",
        )
    report.execute_script(
        "document.querySelector('#tab-failed .tools button').click(); [...document.querySelectorAll('#tab-associations_all .tools "
        "button')].pop().click()"
    )
    wanted = {"volcano.svg", "volcano.csv", "correlation.svg", "correlation.csv", "failed.csv", "associations_all.csv"}
    end = time.monotonic() + 60
    while not wanted <= {p.name for p in report.downloads.iterdir() if p.stat().st_size}:
        assert time.monotonic() < end, sorted(p.name for p in report.downloads.iterdir())
        time.sleep(0.1)
    drawing = (report.downloads / "volcano.svg").read_text()
    assert drawing.startswith("<svg") and "var(--" not in drawing and "Odds ratio per SD" in drawing
    lines = (report.downloads / "failed.csv").read_text().splitlines()
    assert len(lines) == 3 and not [line for line in lines if line.lstrip('"').startswith(("=", "+", "-", "@"))]
    assert (report.downloads / "associations_all.csv").read_text().startswith("biomarker,family,estimate")


def test_readable_at_400_px(report):
    report.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True})
    try:
        wait(report, "return [...document.querySelectorAll('figure.fig .host svg')].every(s => s.viewBox.baseVal.width < 400)")
        assert report.execute_script("return document.documentElement.scrollWidth") <= 400
        wide = report.execute_script(
            "return [...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > 401 && !e.closest('.scroll, "
            "pre, svg')).map(e => e.outerHTML.slice(0, 80))"
        )
        assert wide == []
        for table in ("top", "associations_all"):
            edge = report.execute_script(
                "return document.querySelector(arguments[0] + ' tbody tr').cells[2].getBoundingClientRect().right", f"#tab-{table}"
            )
            assert edge <= 400, f"the estimates of {table} are out of sight"
        small = report.execute_script(
            "return [...document.querySelectorAll('.host svg text')].filter(t => parseFloat(getComputedStyle(t).fontSize) < 11).length"
        )
        assert small == 0
        assert (
            report.execute_script(
                "const b = document.getElementById('menu'); b.click(); return getComputedStyle(document.querySelector('nav')).display"
            )
            == "block"
        )
    finally:
        report.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("width", [1400, 400])
def test_tick_labels_do_not_overlap(report, width):
    report.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False})
    try:
        wait(
            report,
            "return [...document.querySelectorAll('figure.fig .host svg')].every(s => s.viewBox.baseVal.width < arguments[0])",
            width,
        )
        overlapping = report.execute_script(
            """const out = [];
            for (const f of document.querySelectorAll('figure.fig')) {
              const rows = {};
              for (const t of f.querySelectorAll('.host text.tick[text-anchor=middle]'))
                (rows[t.getAttribute('y')] ||= []).push([t.getBoundingClientRect(), t.textContent]);
              for (const row of Object.values(rows)) {
                row.sort((a, b) => a[0].left - b[0].left);
                for (let i = 1; i < row.length; i++) if (row[i][0].left < row[i - 1][0].right) out.push([f.id, row[i - 1][1], row[i][1]]);
              }
            }
            return out;"""
        )
        assert overlapping == []
    finally:
        report.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_schemes(report, scheme):
    report.execute_script("document.documentElement.dataset.theme = arguments[0]", scheme)
    ratios = report.execute_script(
        """const part = (x) => { x /= 255; return x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; };
        const lum = (c) => {
          const v = c.match(/[\\d.]+/g).slice(0, 3).map(Number).map(part);
          return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2];
        };
        const paper = lum(getComputedStyle(document.body).backgroundColor), out = {};
        const add = (key, c) => {
          const l = lum(c), r = (Math.max(l, paper) + 0.05) / (Math.min(l, paper) + 0.05);
          out[key] = Math.min(out[key] || 99, r);
        };
        for (const q of ['main p', 'main h2', 'figcaption', '.printable', 'nav a', 'main a', 'td', '.controls label'])
          for (const e of document.querySelectorAll(q)) add(q, getComputedStyle(e).color);
        for (const q of ['text.tick', 'text.rowlabel', 'text.cell', 'text.label'])
          for (const e of document.querySelectorAll('.host ' + q)) add(q, getComputedStyle(e).fill);
        return out;"""
    )
    assert min(ratios.values()) >= 4.5, ratios


def test_gallery_toggles_and_enlarges(report):
    shown = "return getComputedStyle(document.querySelector('#eyes img.masks')).display"
    assert report.execute_script(shown) != "none"
    report.execute_script("document.getElementById('gallery-masks').click()")
    assert report.execute_script(shown) == "none"
    report.execute_script("document.querySelector('#eyes button.eye').click()")
    assert report.execute_script("return document.getElementById('viewer').open && document.querySelectorAll('#viewer img').length") == 2
    sizes = report.execute_script("return [...document.querySelectorAll('#eyes img')].map(i => i.naturalWidth)")
    assert sizes and min(sizes) > 0
