"""Imports what users name: classes and functions of modules and of scripts."""

from __future__ import annotations

import argparse
import importlib
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from lightningtune.errors import InvalidConfigError, did_you_mean
from lightningtune.files import expand_home


def find_class(class_path: str, *bases: type) -> Callable[..., Any] | None:
    """Return what a config's ``class_path`` names, a class within a class too; None where there is nothing.

    Example:
        >>> find_class("collections.Counter"), find_class("KeyError", Exception), find_class("Counter")
        (<class 'collections.Counter'>, <class 'KeyError'>, None)
    """
    if "." not in class_path:
        return classes_by_name(*bases).get(class_path)
    try:
        found = pkgutil.resolve_name(class_path)
    except Exception:  # importing runs whatever the module does; `require_class` says what it raises
        return None
    return found if callable(found) else None


def find_block_class(block: Any, base: type) -> type | None:
    """Return the class that a ``class_path`` block, or a name alone, stands for; None where it is neither."""
    given = vars(block) if isinstance(block, argparse.Namespace) else block
    path = given.get("class_path") if isinstance(given, Mapping) else given
    kind = find_class(path, base) if isinstance(path, str) else None
    return kind if isinstance(kind, type) else None


def classes_by_name(*bases: type) -> dict[str, type]:
    """Return the classes that have been imported and derive from these, these among them, by their names.

    A config may name them without their module.
    """
    known: dict[str, type] = {}
    left = [*bases]
    while left:
        base = left.pop()
        if "<locals>" not in base.__qualname__:  # jsonargparse does not take those
            known[base.__name__] = base
        left += base.__subclasses__()
    return known


def require_class(path: str, class_path: str, *bases: type) -> Callable[..., Any]:
    """Return what a config's ``class_path`` names, as `find_class` does; where there is nothing, raise why."""
    found = find_class(class_path, *bases)
    if found is not None:
        return found
    if "." in class_path:
        return import_named(path, class_path)  # it raises
    near = did_you_mean(class_path, sorted(classes_by_name(*bases)))
    own = f" A class of your own is named with its module, as 'package.{class_path}'."
    raise InvalidConfigError(f"{path}: there is no '{class_path}'.{near or own}")


def class_path_of(target: type) -> str | None:
    """Return the name by which a config names a class; None where it cannot, or where the class is abstract.

    A class of a script goes by its name alone: in the script itself it is ``__main__``'s.
    """
    if "<locals>" in target.__qualname__ or inspect.isabstract(target):
        return None
    return f"{target.__module__}.{target.__qualname__}" if "." in target.__module__ else target.__qualname__


def search_also(*folders: Path) -> None:
    """Find modules in these folders too, the first one first; the processes of trials then do so as well."""
    for folder in reversed(folders):
        entry = str(folder.absolute())
        if entry in sys.path:
            sys.path.remove(entry)
        sys.path.insert(0, entry)


def import_named(what: str, name: str, folders: Iterable[Path] = ()) -> Callable[..., Any]:
    """Import a class or a function.

    Example:
        >>> import_named("score", "statistics:median").__name__
        'median'
        >>> import_named("score", "statistics.medain")
        Traceback (most recent call last):
        ...
        lightningtune.errors.InvalidConfigError: score: the module 'statistics' has no 'medain'. Did you mean 'median'?
    """
    module_name, _, attribute = name.rpartition(":" if ":" in name else ".")
    if name.endswith(".py"):
        raise InvalidConfigError(f"{what}: '{name}' is a script. Name what is in it too, as '{name}:Name'.")
    if not module_name or not attribute:
        raise InvalidConfigError(
            f"{what}: '{name}' names no module. It is written as 'package.module.{attribute or 'Name'}' or as "
            f"'train.py:{attribute or 'Name'}'."
        )
    script = find_script(what, module_name, folders)
    found: Any = _import(what, module_name, name) if script is None else import_script(what, module_name, script)
    for part in attribute.split("."):
        if not hasattr(found, part):
            module_name = script.stem if script else module_name
            raise InvalidConfigError(
                f"{what}: the module '{module_name}' has no '{part}'.{did_you_mean(part, vars(found))}"
            )
        found = getattr(found, part)
    if not callable(found):
        raise InvalidConfigError(f"{what}: '{name}' must be a class or a function, but is {found!r}.")
    return found  # type: ignore[no-any-return]  # whatever a module holds


def find_script(what: str, path: str, folders: Iterable[Path] = ()) -> Path | None:
    """Return where a script is, or None for what is no script's path."""
    if not path.endswith(".py"):
        return None
    places = [folder / expand_home(path) for folder in (*folders, Path())]
    script = next((place.absolute() for place in places if place.is_file()), None)
    if script is None:
        near = did_you_mean(path, (file.name for place in places for file in sorted(place.parent.glob("*.py"))))
        raise InvalidConfigError(f"{what}: there is no file '{path}'.{near}")
    return script


def import_script(what: str, path: str, script: Path) -> ModuleType:
    """Import a script under its file's name, by which the processes of trials find its classes."""
    if not script.stem.isidentifier():
        raise InvalidConfigError(
            f"{what}: '{path}' cannot be imported under the name '{script.stem}'. Give it another name."
        )
    search_also(script.parent)
    module = _import(what, script.stem, path)
    other = getattr(module, "__file__", None)
    if other is None or not Path(other).samefile(script):
        raise InvalidConfigError(
            f"{what}: another module is called '{script.stem}', which is '{other or 'built in'}'. "
            f"Give '{path}' another name."
        )
    return module


def _import(what: str, module: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _import_error(what, name, error) from error
        searched = f" It was looked for in '{Path(sys.path[0])}', the working directory and what is installed."
        near = did_you_mean(error.name, _modules_beside(error.name)) or searched
        raise InvalidConfigError(
            f"{what}: there is no module '{error.name}', which '{name}' is to be in.{near}"
        ) from None
    except (Exception, SystemExit) as error:  # importing runs whatever the module does
        raise _import_error(what, name, error) from error


def _import_error(what: str, name: str, error: BaseException) -> InvalidConfigError:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    raised = f"{type(error).__name__}: {error}".rstrip(": .")
    hint = " Put what the script runs under: if __name__ == '__main__'." if isinstance(error, SystemExit) else ""
    where = f"{Path(frame.filename).name}, line {frame.lineno}"
    return InvalidConfigError(f"{what}: importing '{name}' raises {raised} ({where}).{hint}")


def _modules_beside(name: str) -> Iterator[str]:
    """Yield the modules of the package, or of the first two folders, in which one was not found."""
    package, _, _ = name.rpartition(".")
    where = list(getattr(sys.modules.get(package), "__path__", ())) if package else sys.path[:2]
    for module in pkgutil.iter_modules(where):
        yield f"{package}.{module.name}" if package else module.name
