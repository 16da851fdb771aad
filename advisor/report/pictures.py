"""The main charts as PNG or SVG files for documents, drawn by Plotly in a headless Chrome that kaleido drives."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from advisor.domain.errors import BadInput
from advisor.report.plotly_parts import THEMES, Figure, plain
from advisor.store.yaml_files import make_folder, write_atomic

PictureFormat = Literal["png", "svg"]
FOLDER = "charts"
WIDTH_PX, SCALE = 1000, 1.5
TITLE_PX = 34


def write_pictures(figures: Mapping[str, Figure], out: Path, kind: PictureFormat) -> list[Path]:
    """One file a chart below `out/charts/`; where a chart offers a choice, its first one, which is about the best.

    Raises:
        BadInput: kaleido or a Chrome is missing or does not start, or the folder cannot be written.
    """
    names = list(figures)
    pictures = _drawn([picture_figure(figures[name]) for name in names], kind)
    folder = make_folder(out / FOLDER)
    paths = [folder / f"{name}.{kind}" for name in names]
    for path, picture in zip(paths, pictures, strict=True):
        write_atomic(path, picture)
    return paths


def picture_figure(figure: Figure) -> dict[str, Any]:
    """A figure that stands alone: with its title, its legend and its own background."""
    label, variant = next(iter(figure.variants.items()))
    title = f"{figure.title}: {label}" if figure.choice else figure.title
    layout, margin = variant["layout"], variant["layout"]["margin"]
    alone = {
        "template": THEMES["light"],
        "showlegend": True,
        "width": WIDTH_PX,
        "height": layout["height"] + TITLE_PX,
        "margin": {**margin, "t": margin["t"] + TITLE_PX},
        "title": {"text": plain(title), "x": 0.01, "font": {"size": 16}},
    }
    return {"data": variant["data"], "layout": {**layout, **alone}}


def _drawn(figures: Sequence[Mapping[str, Any]], kind: PictureFormat) -> list[bytes]:
    try:
        import kaleido
        from choreographer.browsers import ChromeNotFoundError
        from choreographer.errors import BrowserClosedError, BrowserDepsError, BrowserFailedError
    except ImportError:
        raise BadInput(
            "Pictures need the package kaleido, which is not installed: pip install 'trtllm-advisor[images]'. "
            "The page itself (--format html) needs nothing."
        ) from None

    async def draw() -> list[bytes]:
        async with kaleido.Kaleido(n=1, mathjax=False) as browser:
            opts = {"format": kind, "scale": SCALE if kind == "png" else 1}
            return [await browser.calc_fig(figure, opts=opts) for figure in figures]

    try:
        return asyncio.run(draw())
    except ChromeNotFoundError:
        raise BadInput(
            "Pictures are drawn by a Chrome or Chromium, and none is found: install one, or name it in BROWSER_PATH. "
            "The page itself (--format html) needs none."
        ) from None
    except (BrowserClosedError, BrowserDepsError, BrowserFailedError) as error:
        raise BadInput(
            f"The Chrome that draws pictures does not start: {error.args[0] if error.args else type(error).__name__} "
            "Name another one in BROWSER_PATH; the page itself (--format html) needs none."
        ) from None
