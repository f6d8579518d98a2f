"""Check a document against a model, and say pydantic's errors as a person wants to read them. Pure."""

from __future__ import annotations

import types
import typing
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from testbed.spec.document import Document
from testbed.spec.problems import Loc, Problem, SpecError, allowed_instead


class Model(BaseModel):
    """The base of everything a person writes: no unknown keys, no silent conversions, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


M = TypeVar("M", bound=Model)

_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}
_TYPES = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def validate(document: Document, model: type[M]) -> M:
    """Return the model that `document` describes.

    Raises:
        SpecError: with one problem for each error pydantic finds.
    """
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        problems = [
            _problem(document, model, details)
            for details in error.errors(include_url=False)
            if not _follows_from_others(details)
        ]
        raise SpecError(problems) from error


def _follows_from_others(details: ErrorDetails) -> bool:
    """Say whether a list counts as too short only because items of it are wrong."""
    return details["type"] == "too_short" and len(details["input"]) >= details["ctx"]["min_length"]


def _problem(document: Document, model: type[Model], details: ErrorDetails) -> Problem:
    loc: Loc = tuple(details["loc"])
    kind, ctx, given = details["type"], details.get("ctx", {}), details["input"]
    if kind == "extra_forbidden":
        keys = list(_model_at(model, loc[:-1]).model_fields)
        key = str(loc[-1])
        return document.problem(loc, f"unknown key {key!r}{allowed_instead(key, keys)}", at_key=True)
    if kind == "missing":
        return document.problem(loc, f"key {str(loc[-1])!r} is missing", at_key=True)
    return document.problem(loc, _about_value(kind, ctx, given, details["msg"]))


def _about_value(kind: str, ctx: dict[str, Any], given: Any, message: str) -> str:
    if kind == "literal_error":
        allowed = str(ctx["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
        return f"{_shown(given)} is not known{allowed_instead(str(given), allowed)}"
    if kind in _BOUNDS:
        limit, word = _BOUNDS[kind]
        return f"{given!r} is out of range; allowed: {word} {ctx[limit]:.12g}"
    if kind in _TYPES:
        return f"{_shown(given)} is of the wrong type; allowed: {_TYPES[kind]}"
    if kind == "too_short":
        return f"too few items; allowed: at least {ctx['min_length']}"
    if kind == "too_long":
        return f"too many items; allowed: at most {ctx['max_length']}"
    if kind == "value_error":
        return str(ctx["error"])
    return message


def _shown(given: Any) -> str:
    if isinstance(given, dict):
        return "a mapping"
    if isinstance(given, tuple):
        return "a list"
    return "an empty value" if given is None else repr(given)


def _model_at(model: type[Model], loc: Loc) -> type[Model]:
    """Return the model that stands at `loc` inside `model`."""
    found: Any = model
    for part in loc:
        if isinstance(part, str):
            found = _inner_model(found.model_fields[part].annotation)
    return typing.cast("type[Model]", found)


def _inner_model(annotation: Any) -> Any:
    """Return the model inside `X`, `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    if typing.get_origin(annotation) in (tuple, types.UnionType, typing.Union):
        for argument in typing.get_args(annotation):
            if (found := _inner_model(argument)) is not None:
                return found
    return None
