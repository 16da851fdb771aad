"""`report.html`: the page as text, one self-contained file whose own policy lets nothing else run or load.

`report_page` is a pure function of its data. Whoever serves a page that changes (a study that is still running) calls
`report_page(report_data(gather(folder)))` again and sends the text.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import json
import zlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from advisor.report.page_data import ReportData
from advisor.report.plotly_parts import THEMES
from advisor.report.visible import visible

HERE = Path(__file__).parent / "page"


def report_page(data: ReportData) -> str:
    """The whole page."""
    library = plotly_js()
    script = (HERE / "page.js").read_text(encoding="utf-8")
    return _template().render(
        page=data,
        css=(HERE / "page.css").read_text(encoding="utf-8"),
        script=script,
        policy=_policy(script, library),
        charts_json=embedded(data.charts.model_dump(mode="json")),
        figures_json=embedded(
            {"themes": THEMES, "figures": {name: {"variants": each.variants} for name, each in data.figures.items()}}
        ),
        plotly_deflated=_deflated(library),
    )


def embedded(document: Any) -> str:
    """JSON that can stand inside a script element: no character of it ends or opens anything."""
    text = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _policy(*scripts: str) -> str:
    """Scripts other than these, and anything from elsewhere, are refused by the page itself.

    Plotly sets styles as it draws, and makes a picture for those who ask for one.
    """
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@functools.cache
def plotly_js() -> str:
    """plotly.js as the installed plotly package ships it; the package itself is not imported, which takes a while."""
    found = importlib.util.find_spec("plotly")
    assert found is not None and found.origin is not None
    return (Path(found.origin).parent / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


@functools.cache
def _deflated(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


@functools.cache
def _template() -> Template:
    """Whatever is put in is made visible, then escaped."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    return environment.get_template("page.html.j2")


def _finalize(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
