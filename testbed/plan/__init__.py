"""A topology resolved: every node, address, link and guest, as plain data. Pure."""

from testbed.plan.build import build_plan
from testbed.plan.codec import PlanError, plan_from_json, plan_to_json
from testbed.plan.model import Plan

__all__ = ["Plan", "PlanError", "build_plan", "plan_from_json", "plan_to_json"]
