"""The report as JUnit XML, for CI: a test case a migration, a check and a threshold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from testbed.measure.summary import Summary


def junit_xml(summary: Summary) -> str:
    """Write the file. Times are those of the measurement, no clock is read."""
    data = summary.data
    name = f"testbed.{data['substrate']}.{data['mechanism']}"
    suite = ElementTree.Element("testsuite", name=name)
    properties = ElementTree.SubElement(suite, "properties")
    for key in ("run_id", "substrate", "accelerator", "hypervisor", "mechanism", "verdict", "headline"):
        ElementTree.SubElement(properties, "property", name=key, value=str(data[key]))
    for migration in data["migrations"]:
        _migration(suite, name, migration)
    for finding in data["validity"]:
        _finding(suite, name, finding)
    for outcome in data["thresholds"]:
        case = ElementTree.SubElement(suite, "testcase", classname=f"{name}.thresholds", name=outcome["expression"])
        if outcome["holds"]:
            ElementTree.SubElement(case, "failure", message=outcome["detail"], type="threshold")
        elif outcome["holds"] is None:
            ElementTree.SubElement(case, "error", message=f"not decided: {outcome['detail']}", type="not measured")
    _outcome(suite, name, data)
    for tag, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(attribute, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _migration(suite: ElementTree.Element, name: str, migration: Mapping[str, Any]) -> None:
    route = f"{migration['guest']} {migration['source']} to {migration['destination']}"
    title = f"migration {migration['index']}: {route}"
    case = ElementTree.SubElement(suite, "testcase", classname=f"{name}.migrations", name=title)
    duration_ms = migration["metrics"]["migration_time_ms"]
    if duration_ms is not None:
        case.set("time", f"{duration_ms / 1000:.6f}")
    why = migration["error"] or migration["reasons"].get("stuntime_ms") or "no migration_ended event"
    if migration["verdict"] == "FAIL":
        ElementTree.SubElement(case, "failure", message=why, type="migration")
    elif migration["verdict"] != "PASS":
        ElementTree.SubElement(case, "error", message=why, type="migration")
    figures = {**migration["metrics"], **{f"{k}_ms": v for k, v in migration["phases_ms"].items()}}
    output = ElementTree.SubElement(case, "system-out")
    output.text = "\n".join(f"{key} = {'not measured' if v is None else v}" for key, v in figures.items())


def _finding(suite: ElementTree.Element, name: str, finding: Mapping[str, Any]) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=f"{name}.validity", name=finding["name"])
    if finding["ok"] is None:
        ElementTree.SubElement(case, "skipped", message=finding["detail"])
    elif not finding["ok"] and finding["severity"] == "invalid":
        ElementTree.SubElement(case, "error", message=finding["detail"], type="invalid")
    elif not finding["ok"]:
        ElementTree.SubElement(case, "system-err").text = f"flagged: {finding['detail']}"


def _outcome(suite: ElementTree.Element, name: str, data: Mapping[str, Any]) -> None:
    """A run that broke off is a case too: a suite without cases would look like success."""
    if data["verdict"] not in ("ERROR", "SKIPPED"):
        return
    case = ElementTree.SubElement(suite, "testcase", classname=name, name="the run")
    tag = "error" if data["verdict"] == "ERROR" else "skipped"
    ElementTree.SubElement(case, tag, message=data["headline"])
