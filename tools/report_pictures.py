"""The pictures of docs/report.md and README.md: the report as Chromium shows it, one file a chart.

``python -m tools.report_pictures`` runs a study of the twin, opens its report and that of the measured out-of-memory
launch in ``studies/evidence``, and writes ``docs/images/``. Needs a Chromium on PATH; the network stays off.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page

from tools.chromium import chromium

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
STUDY = ("--study", "llama4-maverick-fp8-h100", "--workload", "1k1k_c256", "--workload", "4k1k_c64")
HOW = ("--engine", "twin", "--twin-world", "5", "--sampler", "random", "--max-launches", "24")
OUT_OF_MEMORY = ROOT / "studies" / "evidence" / "h100-vllm-0.24.0" / "oom-load"
CHARTS = {
    "pareto-1k1k_c256": "pareto",
    "course-1k1k_c256": "course",
    "worth-1k1k_c256": "worth",
    "latency-1k1k_c256": "latency",
    "workloads": "workloads",
    "memory": "memory",
    "frontier": "frontier",
    "timeline": "timeline",
}


def advisor(*argv: str) -> str:
    """What a command prints on stdout."""
    program = Path(sys.executable).with_name("advisor")
    return subprocess.run([program, *argv], check=True, stdout=subprocess.PIPE, text=True).stdout


def opened(browser: Browser, page_file: Path, width: int = 1100) -> Page:
    """A report with all its charts drawn."""
    context = browser.new_context(viewport={"width": width, "height": 640})
    context.set_offline(True)
    page = context.new_page()
    page.goto(page_file.as_uri())
    page.wait_for_selector("body[data-ready=all]", timeout=120_000)
    return page


def main() -> None:
    """Write every picture."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        out = Path(name)
        advisor("tune", *STUDY, *HOW, "--out", str(out / "results"))
        (run,) = (path.parent for path in out.glob("results/*/*/summary.json"))
        advisor("report", str(OUT_OF_MEMORY), "--out", str(out / "oom"))
        page = opened(browser, run / "report.html")
        page.screenshot(path=IMAGES / "report.png")
        for chart, picture in CHARTS.items():
            holder = page.locator(f"figure[data-figure='{chart}']")
            holder.scroll_into_view_if_needed()
            holder.screenshot(path=IMAGES / f"report-{picture}.png")
        page = opened(browser, out / "oom" / "report.html")
        page.locator("#trial-0 button[aria-expanded]").click()
        page.locator("#trial-0").evaluate("body => body.scrollIntoView({ block: 'start' })")
        page.screenshot(path=IMAGES / "report-trial.png")
    for path in sorted(IMAGES.glob("report*.png")):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
