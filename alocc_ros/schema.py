# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What users write in YAML, checked by pydantic against a dataclass; the messages are ours.

A field's annotation says what is allowed and how that is called: ``Annotated[float, Field(gt=0),
described("a number above 0")]``. Unlike pydantic's, the types here convert nothing (no text to
numbers, no 1 to true), and the message is one line with file, place, value and what it must be.
"""

from __future__ import annotations

import difflib
import functools
import math
import typing
from collections.abc import Collection
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from alocc_ros.errors import AloccError

T = TypeVar("T")


# Far above what people write: a file beyond them is made to fill memory or the stack.
_YAML_LENGTH, _YAML_DEPTH, _YAML_NODES = 4 << 20, 50, 200_000


def load_yaml(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """Plain values out of YAML, within bounds: length, nesting, and what aliases stand for.

    Raises:
        yaml.YAMLError: it is no YAML, or beyond the bounds.
    """
    if len(text) > _YAML_LENGTH:
        raise yaml.YAMLError(f"{len(text)} characters; at most {_YAML_LENGTH} are read")
    try:
        depth = 0
        for event in yaml.parse(text, loader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _YAML_DEPTH:
                raise yaml.YAMLError(f"nested deeper than {_YAML_DEPTH}")
        reader = loader(text)
        try:
            node = reader.get_single_node()
            if node is None:
                return None
            _count_nodes(node, {})
            return reader.construct_document(node)
        finally:
            reader.dispose()
    except RecursionError:
        raise yaml.YAMLError("nested too deep") from None
    except (ValueError, OverflowError) as error:  # of numbers, dates and keys
        raise yaml.YAMLError(str(error)) from error


def _count_nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values it is, with every alias written out."""
    if id(node) in known:
        if not known[id(node)]:
            raise yaml.YAMLError("an alias for something that holds it")
        return known[id(node)]
    known[id(node)] = 0
    count = 1
    if isinstance(node, yaml.CollectionNode):
        for entry in node.value:
            for child in entry if isinstance(entry, tuple) else (entry,):
                count += _count_nodes(child, known)
        if count > _YAML_NODES:
            raise yaml.YAMLError(f"aliases that stand for more than {_YAML_NODES} values")
    known[id(node)] = count
    return count


def described(what: str) -> WrapValidator:
    """For ``Annotated``: whatever is wrong with the value, it must be ``what``."""

    def check(value: Any, handler: Any) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise PydanticCustomError("described", "{what}", {"what": what}) from None

    return WrapValidator(check)


def one_of(*choices: str) -> WrapValidator:
    """For ``Annotated[str, ...]``: one of these; a message also names the nearest."""

    def check(value: Any, _: Any) -> str:
        if isinstance(value, str) and value in choices:
            return value
        what = f"one of {', '.join(choices)}"
        raise PydanticCustomError(
            "described", "{what}", {"what": what, "hint": nearest(value, choices)}
        )

    return WrapValidator(check)


def between(low: float, high: float, what: str = "a number") -> WrapValidator:
    """For ``Annotated[Number, ...]``: not beyond either bound."""

    def check(value: Any, handler: Any) -> Any:
        try:
            number = handler(value)
        except ValidationError:
            number = math.nan
        if low <= number <= high:
            return number
        what_else = f"{what} from {low} to {high}"
        raise PydanticCustomError("described", "{what}", {"what": what_else})

    return WrapValidator(check)


def said(text: str) -> PydanticCustomError:
    """To raise in a validator: ``text`` behind the place that is wrong."""
    return PydanticCustomError("said", "{text}", {"text": text})


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise PydanticCustomError("described", "a finite number", {"what": "a finite number"})
    return value


Flag = Annotated[bool, Strict(), described("true or false")]
Text = Annotated[str, Strict(), described("text")]
Number = Annotated[float, Strict(), described("a number"), AfterValidator(_finite)]
Positive = Annotated[Number, Field(gt=0), described("a number above 0")]
Whole = Annotated[int, Strict(), described("a whole number")]
Count = Annotated[Whole, Field(gt=0), described("a whole number above 0")]
CountOrZero = Annotated[Whole, Field(ge=0), described("a whole number, 0 or more")]
Numbers3 = Annotated[tuple[Number, Number, Number], described("a list of 3 numbers")]
# Of an entry without a value, as in ``frame:``.
EmptyText = Annotated[Text, BeforeValidator(lambda value: "" if value is None else value)]
# Folded over several lines or not, but not empty.
Sentence = Annotated[
    Text,
    AfterValidator(lambda text: " ".join(text.split())),
    Field(min_length=1),
    described("some text"),
]


def parse(kind: type[T], entries: Any, where: str, error: type[AloccError], **given: Any) -> T:
    """``entries`` of a file as the dataclass ``kind``.

    Args:
        kind: dataclass whose annotations say what is allowed; fields without a default are needed.
        entries: what the YAML file holds, or a part of it.
        where: what messages begin with: the file, and the place in it.
        error: what to raise.
        given: fields that do not come of the file.

    Raises:
        AloccError: of the type ``error``; an entry is wrong, unknown or missing.
    """
    if not isinstance(entries, dict):
        raise error(f"{where}: expected `name: value` entries, got {shown(entries)}")
    for name in given.keys() & entries.keys():
        raise error(f"{where}: {unknown_name('entry', name, _names(kind, given))}")
    try:
        return _adapter(kind).validate_python(({**entries, **given},))[0]
    except ValidationError as failure:
        # A misspelt entry is unknown, and the right one missing: the former says more.
        first = min(failure.errors(include_url=False), key=lambda e: e["type"] == "missing")
        raise error(f"{where}: {_message(kind, first, given)}") from None


def shown(value: Any) -> str:
    """A value in a message."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def nearest(name: Any, known: Collection[str]) -> str:
    """``(did you mean 'x'?)`` after a blank, or nothing."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def nearest_names(name: str, known: Collection[str]) -> str:
    """Names that are spelt alike, or that share a word's beginning (``lr``: none), in quotes."""
    near = difflib.get_close_matches(name, list(known), n=3)
    near += [k for k in known if len(name) > 2 and name in k and k not in near]
    return ", ".join(repr(k) for k in near[:5])


def unknown_name(noun: str, name: Any, known: Collection[str]) -> str:
    """What there is instead, the nearest first."""
    return f"unknown {noun} {name!r}{nearest(name, known)}; there are {', '.join(known)}"


@functools.cache
def _adapter(kind: type[T]) -> TypeAdapter[tuple[T]]:
    # Around a dataclass itself an adapter takes no configuration.
    return TypeAdapter(tuple[kind], config=ConfigDict(extra="forbid"))


def _message(kind: type, error: Any, given: Collection[str]) -> str:
    _, *places, name = error["loc"]
    place = "".join(f"[{p}]" if isinstance(p, int) else f": {p}" for p in places)
    place = f"{place[2:]}: " if place else ""
    if error["type"] == "missing":
        return f"{place}{name} is missing"
    if error["type"] in ("unexpected_keyword_argument", "invalid_key"):
        inner = _dataclass_at(kind, places)
        return place + unknown_name("entry", name, _names(inner, () if places else given))
    place = f"{place}[{name}]" if isinstance(name, int) else f"{place}{name}"
    if error["type"] == "dataclass_type":
        return f"{place}: expected `name: value` entries, got {shown(error['input'])}"
    if error["type"] == "said":
        return f"{place}: {error['msg']}"
    context = error.get("ctx", {})
    what, hint = context.get("what", error["msg"]), context.get("hint", "")
    return f"{place} must be {what}, got {shown(error['input'])}{hint}"


def _names(kind: type, given: Collection[str]) -> list[str]:
    return [f.name for f in fields(kind) if f.name not in given]


def _dataclass_at(kind: type, places: Collection[str | int]) -> type:
    """The dataclass that the entries there belong to."""
    for place in places:
        inner = _dataclass_in(typing.get_type_hints(kind).get(str(place)))
        kind = inner or kind  # an index or a key leads to the values' dataclass, which is found
    return kind


def _dataclass_in(hint: Any) -> type | None:
    if is_dataclass(hint):
        return hint
    return next(filter(None, map(_dataclass_in, typing.get_args(hint))), None)
