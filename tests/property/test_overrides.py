"""`--set key=value` is the same as having written it in the file."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from testbed.spec import apply_overrides, load_experiment

BASE = {
    "schema_version": 1,
    "name": "drawn",
    "topology": "t.yaml",
    "substrate": "netns",
    "mechanism": "ttl",
    "migrations": [{"to": "site-b"}],
}

#: Dotted keys with values that are allowed there; JSON is YAML.
VALUES = {
    "mechanism": st.sampled_from(["ttl", "pubsub", "smr-old-xtr"]),
    "probes.interval_ms": st.floats(1, 1000) | st.integers(1, 1000),
    "probes.flows": st.lists(st.sampled_from(["icmp", "udp"]), min_size=1, unique=True),
    "lisp.limiters.smr": st.booleans(),
    "lisp.registration_ttl_minutes": st.integers(1, 2**31 - 1),
    "emulated_guest.downtime_ms": st.floats(0, 600_000),
    "seed": st.integers(0, 2**63 - 1),
    "description": st.text(st.characters(codec="ascii", exclude_categories=["Cc"])),
    "migrations.0.to": st.sampled_from(["site-a", "site-c"]),
}

assignments = st.lists(
    st.sampled_from(sorted(VALUES)).flatmap(lambda key: st.tuples(st.just(key), VALUES[key])), max_size=6
)


def written(base: dict[str, object], key: str, value: object) -> dict[str, object]:
    copy = json.loads(json.dumps(base))
    node = copy
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    for part in path:
        node = node[part] if isinstance(node, list) else node.setdefault(part, {})
    node[last] = value
    return copy


@given(assignments)
def test_an_override_is_as_if_written(drawn: list[tuple[str, object]]) -> None:
    expected = BASE
    for key, value in drawn:
        expected = written(expected, key, value)
    overrides = [f"{key}={json.dumps(value)}" for key, value in drawn]
    assert apply_overrides(json.dumps(BASE), overrides, "e.yaml") == load_experiment(json.dumps(expected), "e.yaml")
