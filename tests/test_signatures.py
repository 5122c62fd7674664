import dataclasses
import functools
import typing
import weakref

import pytest
import torch

from lightningtune.signatures import REQUIRED, import_class, signature_of, type_hints


class Base:
    def __init__(self, width: int, lr: float = 0.1): ...


class Passing(Base):
    def __init__(self, extra=None, **kwargs):
        super().__init__(**kwargs)


class Keeping:
    def __init__(self, a=1, **kwargs):
        self.kwargs = kwargs


def function(data, x: "int" = 3, *rest, y=4, **more): ...


def closed(data, x=3, *, y): ...


@pytest.mark.parametrize(
    ("target", "defaults", "is_open"),
    [
        (Base, {"width": REQUIRED, "lr": 0.1}, False),
        (Passing, {"extra": None, "width": REQUIRED, "lr": 0.1}, False),
        (Keeping, {"a": 1}, True),
        (closed, {"data": REQUIRED, "x": 3, "y": REQUIRED}, False),
        (functools.partial(closed, 1), {"x": 3, "y": REQUIRED}, False),
        (functools.partial(closed, 1, y=2), {"x": 3, "y": 2}, False),
        (function, {"data": REQUIRED, "x": 3, "y": 4}, True),
    ],
)
def test_a_signature_says_what_is_accepted(target, defaults, is_open):
    signature = signature_of(target)
    assert dict(signature.defaults) == defaults
    assert signature.open is is_open
    assert signature.accepts("anything") is is_open


def test_hints_are_resolved_where_they_can_be():
    assert type_hints(functools.partial(function, 1)) == {"x": int}
    assert type_hints(Passing) == {"width": int, "lr": float}

    class Odd(Base):
        def __init__(self, x: "NoSuchType"): ...  # noqa: F821

    assert type_hints(Odd) == {"width": int, "lr": float}


def test_one_annotation_that_cannot_be_resolved_leaves_the_others():
    class Partly(Base):
        def __init__(self, width: "int", lr, x: "NoSuchType" = None, y: "list[" = 1, z: int = 0) -> None: ...  # noqa: F722, F821

    assert type_hints(Partly) == {"width": int, "z": int}
    assert type_hints(Factory()) == {"lr": float}


def test_a_class_is_imported_by_its_path():
    assert import_class("collections.Counter") is typing.get_origin(typing.Counter[int])
    for path in ("collections.Conter", "no_such_module.X", "Counter", ""):
        assert import_class(path) is None


def test_what_a_callable_holds_is_not_kept():
    data = torch.zeros(3)
    gone = weakref.ref(data)
    assert signature_of(functools.partial(function, data)).defaults
    del data
    assert gone() is None


@dataclasses.dataclass
class Factory:
    width: int = 3

    def __call__(self, lr: float = 0.1): ...


def test_a_callable_need_not_be_hashable():
    assert signature_of(Factory()).defaults == {"lr": 0.1}
