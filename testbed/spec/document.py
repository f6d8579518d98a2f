"""A YAML text with the position of everything in it, and the overrides laid over it. Pure."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from testbed.spec.problems import Loc, Problem, SpecError

#: Characters of a YAML problem's text that would break the one-line form of a problem.
_SPACE = str.maketrans("\n\t", "  ")
#: What ruamel lets through when a tag does not fit its value (`!!int name`), beside its own errors.
MALFORMED = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, AssertionError)
TOO_DEEP = "nested too deeply, or an alias that contains itself"


class Document:
    """A parsed file.

    Attributes:
        filename: as the person gave it.
        data: plain mappings, tuples and scalars.
    """

    def __init__(self, text: str, filename: str) -> None:
        """Parse `text`; raises `SpecError` for anything that is not one YAML mapping."""
        self.filename = filename
        self._overrides: list[tuple[Loc, str]] = []
        try:
            self._tree = _parse(text, filename)
            self.data: dict[str, Any] = _plain(self._tree)
        except RecursionError as error:
            raise SpecError([Problem(filename, 1, 1, TOO_DEEP)]) from error

    def override(self, assignment: str, *, label: str = "") -> None:
        """Set one value as `--set key.key=value` does; the value is YAML.

        Args:
            assignment: key and value.
            label: what problems with it are placed at; `--set` and the assignment if left out.

        Raises:
            SpecError: no `=`, a value that is not YAML, or a key under something that is no mapping.
        """
        label = label or f"--set {assignment}"
        key, equals, value_text = assignment.partition("=")
        if not equals or not key or not all(key.split(".")):
            raise SpecError([Problem(label, None, None, "not of the form key=value or key.key=value")])
        loc: Loc = tuple(int(part) if part.isdigit() else part for part in key.split("."))
        self._overrides.append((loc, label))
        try:
            value = _plain(YAML(typ="rt", pure=True).load(io.StringIO(value_text)))
        except (YAMLError, RecursionError, *MALFORMED) as error:
            why = TOO_DEEP if isinstance(error, RecursionError) else _reason(error)
            raise SpecError([Problem(label, None, None, f"the value cannot be used: {why}")]) from error
        try:
            self.data = _assign(self.data, loc, value)
        except (TypeError, IndexError) as error:
            raise SpecError([Problem(label, None, None, str(error))]) from error

    def problem(self, loc: Loc, what: str, *, at_key: bool = False) -> Problem:
        """Say `what` about the value (or the key) at `loc`, or about the nearest thing around it."""
        for path, label in reversed(self._overrides):
            if loc[: len(path)] == path:
                return Problem(label, None, None, what)
        line, column = self._position(loc, at_key)
        return Problem(self.filename, line, column, what)

    def _position(self, loc: Loc, at_key: bool) -> tuple[int, int]:
        node: Any = self._tree
        line, column = _start(node)
        for depth, part in enumerate(loc):
            last = depth == len(loc) - 1
            if isinstance(node, CommentedMap) and part in (node.lc.data or {}):
                line, column = node.lc.key(part) if last and at_key else node.lc.value(part)
            elif isinstance(node, CommentedSeq) and isinstance(part, int) and part in (node.lc.data or {}):
                line, column = node.lc.item(part)
            else:
                break
            node = node[part]
        return line + 1, column + 1


def _start(node: Any) -> tuple[int, int]:
    return (node.lc.line or 0, node.lc.col or 0)


def _parse(text: str, filename: str) -> CommentedMap:
    try:
        tree = YAML(typ="rt", pure=True).load(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        raise SpecError([Problem(filename, line, column, _reason(error))]) from error
    except (YAMLError, *MALFORMED) as error:
        raise SpecError([Problem(filename, 1, 1, _reason(error))]) from error
    if not isinstance(tree, CommentedMap):
        raise SpecError([Problem(filename, 1, 1, "not a mapping; allowed: `key: value` lines")])
    return tree


def _reason(error: Exception) -> str:
    if isinstance(error, DuplicateKeyError):
        name = str(error.problem).split('"')[1]
        return f"key {name!r} stands twice in one mapping; allowed: once"
    text = error.problem if isinstance(error, MarkedYAMLError) and error.problem else str(error)
    return f"not YAML: {str(text).translate(_SPACE)}"


def _plain(node: Any) -> Any:
    """Copy ruamel's tree as plain Python; sequences as tuples, which frozen models hold."""
    if isinstance(node, Mapping):
        return {key if isinstance(key, int) else str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, Sequence) and not isinstance(node, str):
        return tuple(_plain(item) for item in node)
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _assign(node: Any, loc: Loc, value: Any) -> Any:
    """Return a copy of `node` with `value` at `loc`; mappings on the way are made where absent."""
    if not loc:
        return value
    head, rest = loc[0], loc[1:]
    if isinstance(node, tuple):
        if not isinstance(head, int):
            raise TypeError(f"{head!r} is not an index; allowed here: 0 to {len(node) - 1}")
        if head >= len(node):
            raise IndexError(f"there is no item {head}; allowed: 0 to {len(node) - 1}")
        return (*node[:head], _assign(node[head], rest, value), *node[head + 1 :])
    if node is None or isinstance(node, dict):
        mapping = dict(node or {})
        mapping[head] = _assign(mapping.get(head), rest, value)
        return mapping
    raise TypeError(f"{node!r} has no key {str(head)!r}")
