"""A run's folder in; summary.json, report.html, report.md, junit.xml and plots out. Rebuildable."""

from testbed.measure.summary import Summary
from testbed.report.build import build_report
from testbed.report.sets import build_set_report, compare_runs

__all__ = ["Summary", "build_report", "build_set_report", "compare_runs"]
