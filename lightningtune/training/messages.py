"""The messages of jsonargparse and Lightning in a line: what the former says of one value may fill a page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

_LONGEST = 100
"""Characters of a value that is shown."""
_KEY = re.compile(r'(?:.*: )?Parser key "(?P<key>.+)":')
_CLASS = re.compile(r"Problem with given class_path '(?:.*\.)?(?P<name>.+)':")
_UNION = "Does not validate against any of the Union subtypes"
_EXPECTED = re.compile(
    r"(?:Expected (?:an? )?(?P<type><class '[^']+'>|typing\.Literal\[.+?\])|Not a valid subclass of (?P<base>\w+))"
    r"(?:\. Got value:(?P<got>.*))?"
)
_OTHER_TYPE = re.compile(r"Not of type \w+: .+")
_NO_CLASS = re.compile(r"Expected a dot import path string: (?P<got>.*)")
_NO_FILE = re.compile(r"\n *- Expected a path but .*\n( *)- ")
"""What is said where a value might have been the name of a file; what follows it is all that counts."""


def one_line(error: Exception) -> str:
    """Return the message of an error in one line."""
    return " ".join(str(error).replace("Parser key ", "").split())


def refusal(error: Exception, section: str = "") -> str:
    """Say why jsonargparse refuses a config: where the value is, what is expected there, and what was given.

    Of several alternatives the one that was meant tells it: a class whose argument is wrong, or an item of a list.

    Args:
        error: what its parser has raised; of a form that is not known, the message is returned in one line.
        section: of the config, where it was raised as what stands there was made, and does not name it.

    Example:
        >>> from jsonargparse import ArgumentParser
        >>> parser = ArgumentParser(exit_on_error=False)
        >>> parser.add_argument("--epochs", type=int | None)  # doctest: +ELLIPSIS
        ActionTypeHint(...)
        >>> try:
        ...     parser.parse_object({"epochs": "ten"})
        ... except Exception as error:
        ...     print(refusal(error))
        epochs: expected int or None, but got ten.
    """
    found = _find(_tree(_NO_FILE.sub(r"\n\1", str(error)).splitlines()))
    where = (section, *found.where) if section else found.where
    if not where or not found.said:
        return one_line(error)
    return f"{': '.join((*where, found.said)).removesuffix('.')}."


@dataclass(frozen=True)
class _Line:
    text: str
    below: list[_Line] = field(default_factory=list)


@dataclass(frozen=True)
class _Finding:
    """What is wrong.

    Attributes:
        said: what is said of the value.
        where: the keys that lead to it, of which those within a class name it.
        got: the value, where it may be an item of the one that the key leads to.
        is_type: whether only a type is said that the value might have had.
    """

    said: str
    where: tuple[str, ...] = ()
    got: str | None = None
    is_type: bool = False


def _tree(lines: Iterable[str]) -> list[_Line]:
    """Return lines with those below them that are indented more; what follows a hyphen is below it."""
    top = _Line("")
    above = [(-1, top)]
    for line in filter(str.strip, lines):
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
    """Read one of the forms: a key and what is wrong below it, a class and the same, alternatives, a type."""
    first = lines[0].text if lines else ""
    if key := _KEY.fullmatch(first):
        inner = _find(lines[0].below)
        return replace(inner, where=(key["key"], *inner.where))
    if named := _CLASS.fullmatch(first):
        inner = _find(lines[0].below)
        own, *rest = inner.where or ("",)
        return replace(inner, where=(f"{own} of {named['name']}" if own else named["name"], *rest))
    if first == _UNION:
        told = {name: text for name, _, text in (line.text.partition(": ") for line in lines)}
        items = [item for line in lines if line.text == "Errors:" for item in line.below]
        return _choose(items, told.get("Subtypes", ""), told.get("Given value", "").partition(". Got value:")[0])
    if expected := _EXPECTED.fullmatch(first):
        got, what = expected["got"], _tidied(expected["type"] or expected["base"])
        said = f"expected {what}" if got is None else f"expected {what}, but got {_shown(got)}"
        return _Finding(said, got=got and got.strip(), is_type=True)
    if no_class := _NO_CLASS.fullmatch(first):
        got = no_class["got"].strip()
        said = f"expected the path of a class, such as package.module.Name, but got {_shown(got)}"
        return _Finding(said, got=got, is_type=True)
    return _Finding(_flat(lines), is_type=bool(_OTHER_TYPE.fullmatch(first)))


def _choose(alternatives: Iterable[_Line], types: str, given: str) -> _Finding:
    """Choose what is within the value, then what is said of it, then the types that it might have had."""
    found = [_find(item.below) for item in alternatives]
    for one in found:
        if one.where:
            return one
    # an item's own value is shorter than what holds it, which may be told as an item's, too
    items = [one for one in found if one.got and not (given.startswith(one.got) or one.got.startswith(given))]
    if items:
        return min(items, key=lambda one: len(one.got or ""))
    said = dict.fromkeys(one.said for one in found if not one.is_type and not one.said.endswith(f": {given}"))
    if said:
        return _Finding("; ".join(said))
    if not types:
        return _Finding("")
    *most, last = _each(_tidied(types))
    return _Finding(f"expected {', '.join(most)} or {last}, but got {_shown(given)}")


def _flat(lines: Iterable[_Line]) -> str:
    return " ".join(text for line in lines for text in (line.text, _flat(line.below)) if text)


def _shown(value: str) -> str:
    shown = value.strip() or "''"
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"


def _tidied(types: str) -> str:
    """Return types without the modules that they are from, and choices as they are.

    Example:
        >>> _tidied("[list[lightning.pytorch.Callback], <class 'NoneType'>, typing.Literal['a.b', 3]]")
        "[list[Callback], None, Literal['a.b', 3]]"
    """
    plain = re.sub(r"<class '([^']+)'>", r"\1", types)
    texts = r"('(?:[^'\\]|\\.)*')"
    return re.sub(rf"{texts}|(?:\w+\.)+(?=\w)", lambda found: found[1] or "", plain).replace("NoneType", "None")


def _each(types: str) -> list[str]:
    """Return the types of a list of them.

    Example:
        >>> _each("[dict[str, int], Literal['a, b', 3], None]")
        ['dict[str, int]', "Literal['a, b', 3]", 'None']
    """
    parts, depth, is_text = [""], 0, False
    for sign in types[1:-1]:
        is_text ^= sign == "'"
        depth += 0 if is_text else (sign == "[") - (sign == "]")
        if sign == "," and not depth and not is_text:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]
