"""`testbed lig` from outside a lab that is up."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.netns.runs import QUICK, command, lab_folder

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces"),
]

Run = Callable[..., subprocess.CompletedProcess[str]]


@contextmanager
def lab_up(folder: Path, *sets: str) -> Iterator[Run]:
    """The command line, with a lab of its own up."""
    overrides = [word for each in sets for word in ("--set", each)]
    with lab_folder() as runtime:
        up = command("up", str(QUICK), "--out", str(folder), *overrides, runtime=runtime)
        try:
            assert up.returncode == 0, up.stderr
            yield partial(command, runtime=runtime)
        finally:
            command("down", "--all", runtime=runtime)


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with lab_up(tmp_path_factory.mktemp("lab")) as run:
        yield run


def test_it_asks_from_the_correspondents_xtr(testbed: Run) -> None:
    done = testbed("lig", "192.168.0.10", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["map_resolver"] == answer["replier"] == "10.0.0.2"
    assert [record["eid"] for record in answer["records"]] == ["192.168.0.10/32"]
    assert answer["records"][0]["locators"][0] == {"rloc": "10.0.1.2", "state": "up", "priority": 1, "weight": 100}


def test_it_asks_from_any_node_and_says_what_is_not_registered(testbed: Run) -> None:
    done = testbed("lig", "192.168.0.77", "--node", "core")
    assert done.returncode == 0, done.stderr
    assert "negative: natively-forward" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["bogus"], "no IP address"),
        (["192.168.0.10", "--node", "nowhere"], "no node nowhere"),
        (["192.168.0.10", "--map-resolver", "10.0.1.1", "--count", "1"], "did not answer"),
    ],
)
def test_what_goes_wrong_is_said(testbed: Run, arguments: list[str], complaint: str) -> None:
    done = testbed("lig", *arguments)
    assert done.returncode != 0
    assert complaint in done.stderr


def test_it_asks_in_the_instance_of_its_node_or_in_the_one_that_is_named(tmp_path: Path) -> None:
    with lab_up(tmp_path, "topology=../topologies/two-instances.yaml") as testbed:

        def answer(*options: str) -> tuple[int, list[tuple[str, int, list[str]]]]:
            done = testbed("lig", "192.168.0.10", "--json", *options)
            assert done.returncode == 0, done.stderr
            shown = json.loads(done.stdout)
            rows = [(r["eid"], r["instance_id"], [each["rloc"] for each in r["locators"]]) for r in shown["records"]]
            return shown["instance_id"], rows

        own = (7, [("192.168.0.10/32", 7, ["10.0.1.2"])])
        other = (8, [("192.168.0.0/24", 8, ["10.0.4.2"])])
        assert answer() == answer("--node", "xtr-b") == answer("--node", "xtr-e", "--instance-id", "7") == own
        assert answer("--node", "xtr-e") == answer("--node", "ms", "--instance-id", "8") == other
        assert answer("--instance-id", "0") == (0, [("0.0.0.0/0", 0, [])])
        text = testbed("lig", "192.168.0.10", "--node", "xtr-e").stdout
        assert "Mapping entry for EID [8]192.168.0.10:" in text
        refused = testbed("lig", "192.168.0.10", "--instance-id", "16777216")
        assert refused.returncode != 0
        assert "16777215" in refused.stderr
