"""What an experiment's `lisp` becomes in the agents' configurations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from testbed.lab.agents import mapserver, xtr
from testbed.lab.configs import Configs
from testbed.lisp.sealing import AUTHENTICATIONS
from testbed.lisp.tolerances import Tolerance
from testbed.lisp.wire import AlgorithmId
from testbed.plan import build_plan
from testbed.spec import experiment as spec
from testbed.spec import load_topology
from tests.unit.plan.test_build import ROOT, first_migration, two_sites


def configs_of(folder: Path, *overrides: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Of the Map-Server and of the first site's xTR."""
    experiment = first_migration(*overrides)
    plan = build_plan(two_sites(), experiment)
    configs = Configs(plan, experiment, folder / "events.jsonl", folder)
    return configs.map_server().config, configs.xtrs(plan.sites[0])[0].config


def test_the_xtrs_of_a_site_register_their_own_locators_to_be_merged_and_know_all(tmp_path: Path) -> None:
    path = ROOT / "topologies/dual-homed-correspondent.yaml"
    experiment = first_migration()
    plan = build_plan(load_topology(path.read_text(), path.name), experiment)
    configs = Configs(plan, experiment, tmp_path / "events.jsonl", tmp_path)
    alone, *_ = (xtr.config_from(each.config) for each in configs.xtrs(plan.sites[0]))
    assert not alone.options.merge_registrations
    specs = configs.xtrs(plan.site("site-c"))
    assert [each.node for each in specs] == ["xtr-c", "xtr-c2"]
    first, second = (xtr.config_from(each.config) for each in specs)
    assert first.options.merge_registrations
    assert second.options.merge_registrations
    assert [str(each.rloc) for each in (first, second)] == ["10.0.3.2", "10.0.201.2"]
    assert first.locators == second.locators
    assert [each.weight for each in first.locators] == [50, 50]
    assert first.identity.xtr_id != second.identity.xtr_id
    assert first.secret == second.secret
    assert [str(each) for each in (*first.gateways, *second.gateways)] == ["192.168.3.1", "192.168.3.254"]
    assert len({each.config["gateway_mac"] for each in specs}) == len({each.config["state"] for each in specs}) == 2


@pytest.mark.parametrize("word", [None, *AUTHENTICATIONS])
def test_the_authentication_is_both_agents_and_the_rfcs_choice_by_default(tmp_path: Path, word: str | None) -> None:
    server, site = configs_of(tmp_path, *([f"lisp.authentication={word}"] if word else []))
    algorithm = AUTHENTICATIONS[word] if word else AlgorithmId.HMAC_SHA_256_128_HKDF  # RFC 9301 §1.1
    assert {each.secret.algorithm for each in mapserver.config_from(server).sites} == {algorithm}
    assert xtr.config_from(site).secret.algorithm == algorithm


def test_tolerances_reach_both_agents_and_are_none_by_default(tmp_path: Path) -> None:
    server, site = configs_of(tmp_path / "none")
    assert mapserver.config_from(server).options.tolerate == xtr.config_from(site).options.tolerate == frozenset()
    server, site = configs_of(tmp_path / "some", "lisp.tolerate=[sha-1, zero-notify-authentication]")
    wanted = {Tolerance.SHA_1, Tolerance.ZERO_NOTIFY_AUTHENTICATION}
    assert mapserver.config_from(server).options.tolerate == xtr.config_from(site).options.tolerate == wanted


def test_an_experiment_knows_every_tolerance() -> None:
    assert set(get_args(spec.Tolerance)) == {each.value for each in Tolerance}


LIMITS = {
    "map_request": (set(), {"map_request_interval_s"}),
    "map_reply": ({"map_reply_interval_s"}, {"map_reply_interval_s"}),
    "smr": ({"smr_interval_s"}, {"smr_interval_s"}),
    "smr_invoked": (set(), {"smr_invoked_interval_s"}),
}


def test_every_rate_limit_has_a_switch_of_its_own(tmp_path: Path) -> None:
    assert set(LIMITS) == set(spec.LimiterSpec.model_fields)
    for name, expected in LIMITS.items():
        found = configs_of(tmp_path / name, f"lisp.limiters.{name}=false")
        for config, off in zip(found, expected, strict=True):
            assert {option for option, value in config["options"].items() if option.endswith("_interval_s")} == off
            assert all(config["options"][option] == 0 for option in off)


def test_each_agent_is_told_the_instances_and_an_xtr_the_eid_space_of_its_own(tmp_path: Path) -> None:
    path = ROOT / "topologies/two-instances.yaml"
    text = path.read_text().replace("[192.168.3.0/24]", "[192.168.4.0/24]", 1)  # of site C, in instance 7
    experiment = first_migration()
    plan = build_plan(load_topology(text, path.name), experiment)
    configs = Configs(plan, experiment, tmp_path / "events.jsonl", tmp_path)
    assert [site.instance_id for site in mapserver.config_from(configs.map_server().config).sites] == [7, 7, 7, 8, 8]
    told = {site.name: xtr.config_from(configs.xtrs(site)[0].config) for site in plan.sites}
    assert {name: config.instance_id for name, config in told.items()} == {
        "site-a": 7, "site-b": 7, "site-c": 7, "site-d": 8, "site-e": 8,
    }  # fmt: skip
    assert [str(each) for each in told["site-a"].eid_space] == ["192.168.0.0/24", "192.168.4.0/24"]
    assert [str(each) for each in told["site-e"].eid_space] == ["192.168.0.0/24", "192.168.3.0/24"]
