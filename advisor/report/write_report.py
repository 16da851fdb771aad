"""The report on disk: `report.html`, and `charts.json` with the numbers of its charts, made from a run folder alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from advisor.app.report_sources import gather
from advisor.report.page_data import ReportData, report_data
from advisor.report.page_html import report_page
from advisor.report.pictures import PictureFormat, write_pictures
from advisor.store.yaml_files import make_folder, write_atomic

PAGE, CHARTS = "report.html", "charts.json"


@dataclass(frozen=True)
class Written:
    """What was written, and what it says."""

    page: Path
    charts: Path
    data: ReportData


def write_report(run: Path, out: Path) -> Written:
    """Read a run folder and write its report. Nothing is launched; writing it again writes the same.

    Args:
        run: `results/<study>/<run>/`, finished or not.
        out: Folder for the two files, usually the same.

    Raises:
        BadInput: it is no run folder, or `out` cannot be written.
    """
    data = report_data(gather(run))
    page, charts = make_folder(out) / PAGE, out / CHARTS
    write_atomic(charts, data.charts.model_dump_json(indent=1) + "\n")
    write_atomic(page, report_page(data))
    return Written(page, charts, data)


def page_of(run: Path) -> str:
    """The page of a run as it is now, for whoever shows it while the run goes on.

    Raises:
        BadInput: it is no run folder.
    """
    return report_page(report_data(gather(run)))


def write_run_pictures(run: Path, out: Path, kind: PictureFormat) -> tuple[Sequence[str], list[Path]]:
    """Read a run folder and write its main charts as pictures; what is missing in the run comes along as notices.

    Raises:
        BadInput: it is no run folder, `out` cannot be written, or what draws pictures is missing.
    """
    data = report_data(gather(run))
    return data.notices, write_pictures(data.figures, out, kind)
