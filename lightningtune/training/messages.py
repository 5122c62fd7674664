"""The messages of jsonargparse and Lightning in a line: what the former says of one value may fill a page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

_LONGEST = 100
"""Characters of a value that is shown."""
_KEY = re.compile(r'Parser key "(?P<key>.+)":')
_CLASS = re.compile(r"Problem with given class_path '.+':")
_UNION = "Does not validate against any of the Union subtypes"
_EXPECTED = re.compile(
    r"(?:Expected (?:a )?(?P<type><class '.+?'>|typing\.Literal\[.+?\]|member of <enum .+?>: .+?)"
    r"|Not a valid subclass of (?P<base>\w+)"
    r"|Not of type (?P<other>\w+): .+?)(?:\. Got value: (?P<got>.*))?"
)


def one_line(error: Exception) -> str:
    """Return the message of an error in one line."""
    return " ".join(str(error).replace("Parser key ", "").split())


def refusal(error: Exception) -> str:
    """Say why jsonargparse refuses a config: where the value is, what is expected there, and what was given.

    Of several alternatives the one that was meant tells it: a class whose argument is wrong, or an item of a list.

    Args:
        error: what its parser has raised; of a form that is not known, the message is returned in one line.

    Example:
        >>> from jsonargparse import ArgumentParser
        >>> parser = ArgumentParser(exit_on_error=False)
        >>> parser.add_argument("--epochs", type=int | None)  # doctest: +ELLIPSIS
        ActionTypeHint(...)
        >>> try:
        ...     parser.parse_object({"epochs": "ten"})
        ... except Exception as error:
        ...     print(refusal(error))
        epochs: expected int or None, but got 'ten'.
    """
    found = _find(_tree(str(error).splitlines()))
    if not found.path or not (found.said or found.expected):
        return one_line(error)
    said = found.said or f"expected {_alternatives(found.expected)}, but got {found.got}"
    return f"{found.path}: {said.removesuffix('.')}."


@dataclass(frozen=True)
class _Line:
    text: str
    below: list[_Line] = field(default_factory=list)


@dataclass(frozen=True)
class _Finding:
    """What is wrong: a value at a path, of which either the types that are expected are known or what is said of it."""

    path: str = ""
    expected: tuple[str, ...] = ()
    got: str | None = None
    said: str = ""


def _tree(lines: Iterable[str]) -> list[_Line]:
    """Return lines with those below them that are indented more; what follows a hyphen is below it."""
    top = _Line("")
    above = [(-1, top)]
    for line in lines:
        depth = len(line) - len(line.lstrip())
        texts = ["-", line.lstrip()[2:]] if line.lstrip().startswith("- ") else [line.strip()]
        for text in texts:
            while above[-1][0] >= depth:
                above.pop()
            node = _Line(text)
            above[-1][1].below.append(node)
            above.append((depth, node))
            depth += 2
    return top.below


def _find(lines: Sequence[_Line]) -> _Finding:
    """Read what is wrong."""
    first = lines[0].text if lines else ""
    if key := _KEY.fullmatch(first):
        return _below(key["key"], lines[0])
    if _CLASS.fullmatch(first):
        return _below("init_args", lines[0])
    if first == _UNION:
        return _find_in_union(lines)
    if expected := _EXPECTED.fullmatch(first):
        types = _types(expected["type"]) if expected["type"] else (expected["base"] or expected["other"],)
        return _Finding(expected=types, got=expected["got"])
    return _Finding(said=_flat(lines))


def _below(key: str, line: _Line) -> _Finding:
    inner = _find(line.below)
    return replace(inner, path=f"{key}.{inner.path}".removesuffix("."))


def _flat(lines: Sequence[_Line]) -> str:
    return " ".join(text for line in lines for text in (line.text, _flat(line.below)) if text)


def _find_in_union(lines: Sequence[_Line]) -> _Finding:
    found = [_find(item.below) for line in lines if line.text == "Errors:" for item in line.below]
    within = next((one for one in found if one.path or one.got is not None), None)
    if within is not None:
        return within
    if any(one.said for one in found):
        return _Finding(said=_flat(lines))
    told = {name: text for name, _, text in (line.text.partition(": ") for line in lines)}
    got, is_text = told.get("Given value", ""), told.get("Given value type") == "<class 'str'>"
    shown = got if len(got) <= _LONGEST else f"{got[:_LONGEST]}…"
    expected = dict.fromkeys(name for one in found for name in one.expected)
    return _Finding(expected=tuple(expected), got=repr(shown) if is_text else shown)


def _types(text: str) -> tuple[str, ...]:
    """Return the names of a type, or its choices.

    Example:
        >>> _types("<class 'pathlib.Path'>"), _types("typing.Literal[16, 32]")
        (('Path',), ('16', '32'))
    """
    return tuple(_each_type(text))


def _each_type(text: str) -> Iterator[str]:
    if text.startswith("typing.Literal["):
        yield from text.removeprefix("typing.Literal[").removesuffix("]").split(", ")
    elif text.startswith("<class '"):
        name = text.removeprefix("<class '").removesuffix("'>").rpartition(".")[2]
        yield {"NoneType": "None", "Iterable": "list"}.get(name, name)
    else:
        yield from text.partition(">: ")[2].strip("{}").split(",")  # the members of an enum


def _alternatives(names: tuple[str, ...]) -> str:
    """Return names with commas, and "or" before the last.

    Example:
        >>> _alternatives(("int", "float", "None"))
        'int, float or None'
    """
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last
