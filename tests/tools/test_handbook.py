"""The handbook covers what the doctor knows about memory, and every link in it leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.check_docs import anchors_of
from tools.handbook import ALL_RULES, MEMORY, Case, anchor, cases, failures, handbook

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def found() -> tuple[Case, ...]:
    return cases(DATA)


@pytest.fixture(scope="module")
def page(found: tuple[Case, ...]) -> str:
    return handbook(found)


def test_every_log_about_memory_has_its_section(found: tuple[Case, ...], page: str) -> None:
    for case in found:
        if case.diagnosis.verdict in MEMORY:
            assert f"# {case.heading}\n" in page, case.path


def test_each_section_shows_a_log_its_verdict_and_a_remedy(page: str) -> None:
    sections = re.split(r"^###+ (?=.*\(\w+\)$)", page, flags=re.MULTILINE)[1:]
    assert len(sections) > 20
    for section in sections:
        assert re.search(r"^> .+\n\n```output\n.+", section, re.MULTILINE), section[:80]
        assert re.search(r"^1\. `.+`", section, re.MULTILINE), section[:80]


def test_first_lines_help_in_the_night(page: str) -> None:
    assert page.index("advisor doctor server.log") < 300


def test_links_inside_lead_somewhere(page: str) -> None:
    assert set(re.findall(r"\]\(#([\w-]+)\)", page)) <= anchors_of(page)


def test_no_two_sections_share_an_anchor(found: tuple[Case, ...]) -> None:
    """A second heading of one name would get a number, and links would lead to the first."""
    headings = {(case.diagnosis.verdict, case.heading) for case in found if case.diagnosis.verdict in MEMORY}
    assert len({anchor(heading) for _, heading in headings}) == len(headings)


def test_list_of_failures_has_every_other_cause() -> None:
    rows = [line for line in failures().splitlines() if line.startswith("| `")]
    causes = [rule for rule in ALL_RULES if rule.meaning.role == "cause" and rule.meaning.kind not in MEMORY]
    alarms = [rule for rule in ALL_RULES if rule.meaning.role == "alarm"]
    assert len(rows) == len(causes) + len(alarms)
