"""The plan as JSON (a run's plan.json) and back. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict

from pydantic import TypeAdapter, ValidationError

from testbed.errors import TestbedError
from testbed.plan.model import Plan

_ADAPTER: TypeAdapter[Plan] = TypeAdapter(Plan)


class PlanError(TestbedError):
    """A plan.json that cannot be read."""


def plan_to_json(plan: Plan) -> str:
    """Return the plan as indented JSON with a newline at its end; the same plan gives the same bytes."""
    return json.dumps(asdict(plan), indent=2) + "\n"


def plan_from_json(text: str) -> Plan:
    """Return the plan that `plan_to_json` wrote.

    Raises:
        PlanError: it is something else.
    """
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PlanError("plan-invalid", f"not a plan: {where}: {first['msg']}") from error
