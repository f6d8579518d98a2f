"""The report in a real browser, at the width of a screen and of a telephone."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.report import build_report
from tests.browser import check_report, open_page
from tests.unit.measure.synthetic import Story, write_run


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser") / "run"
    build_report(write_run(folder, [Story(), Story(source="site-b", destination="site-a")]))
    return folder / "report.html"


def test_the_report_in_a_browser(report: Path) -> None:
    check_report(report)


def test_a_page_that_is_too_wide_or_reaches_out_is_found_out(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        "<!DOCTYPE html><img src='http://127.0.0.1:9/x.png'><div style='width:2000px'>wide</div>"
        "<script>console.error('said')</script>"
    )
    found = open_page(page, 390)
    assert found.facts["overflow"] > 0
    assert "http://127.0.0.1:9/x.png" in found.requests
    assert any("said" in complaint for complaint in found.complaints)
