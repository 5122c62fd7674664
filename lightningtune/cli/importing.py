"""Finding what a command line or a study file names: classes and functions of modules, and of scripts."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from lightningtune.errors import InvalidConfigError, did_you_mean
from lightningtune.files import expand_home


def search_also(*folders: Path) -> None:
    """Find modules in these folders too, the first one first; the processes of trials then do so as well."""
    for folder in reversed(folders):
        entry = str(folder.absolute())
        if entry in sys.path:
            sys.path.remove(entry)
        sys.path.insert(0, entry)


def import_named(what: str, name: str, folders: Iterable[Path] = ()) -> Callable[..., Any]:
    """Import a class or a function.

    Args:
        what: what it is for, as it is called in an error.
        name: ``package.module.Name``, ``package.module:Name`` or ``train.py:Name``.
        folders: where a script's path may begin, beside the working directory.

    Raises:
        InvalidConfigError: saying what is not there, or what its module raises, and what is near.

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
    if script is not None:
        module_name = _of_script(what, module_name, script)
    found: Any = _import(what, module_name, name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise InvalidConfigError(
                f"{what}: the module '{module_name}' has no '{part}'.{did_you_mean(part, vars(found))}"
            )
        found = getattr(found, part)
    if not callable(found):
        raise InvalidConfigError(f"{what}: '{name}' must be a class or a function, but is {found!r}.")
    return found  # type: ignore[no-any-return]  # whatever a module holds


def find_script(what: str, path: str, folders: Iterable[Path] = ()) -> Path | None:
    """Return where a script is, or None for what is no script's path.

    Raises:
        InvalidConfigError: when there is no such script.
    """
    if not path.endswith(".py"):
        return None
    places = [folder / expand_home(path) for folder in (*folders, Path())]
    script = next((place.absolute() for place in places if place.is_file()), None)
    if script is None:
        near = did_you_mean(path, (file.name for place in places for file in sorted(place.parent.glob("*.py"))))
        raise InvalidConfigError(f"{what}: there is no file '{path}'.{near}")
    return script


def _of_script(what: str, path: str, script: Path) -> str:
    """Return the name by which a script is imported, its folder being searched from now on."""
    if not script.stem.isidentifier():
        raise InvalidConfigError(
            f"{what}: '{path}' cannot be imported under the name '{script.stem}'. Give it another name."
        )
    search_also(script.parent)
    other = getattr(_import(what, script.stem, path), "__file__", None)
    if other is None or not Path(other).samefile(script):
        raise InvalidConfigError(
            f"{what}: another module is called '{script.stem}', which is '{other or 'built in'}'. "
            f"Give '{path}' another name."
        )
    return script.stem


def _import(what: str, module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _raised(what, name, error) from error
        near = did_you_mean(error.name, _modules_beside(error.name))
        raise InvalidConfigError(
            f"{what}: there is no module '{error.name}', which '{name}' is to be in.{near or _searched()}"
        ) from None
    except (Exception, SystemExit) as error:  # importing runs whatever the module does
        raise _raised(what, name, error) from error


def _searched() -> str:
    return f" It was looked for in '{Path(sys.path[0])}', the working directory and what is installed."


def _raised(what: str, name: str, error: BaseException) -> InvalidConfigError:
    frame = [*traceback.extract_tb(error.__traceback__)][-1]
    said = f"{type(error).__name__}: {error}".rstrip(": .")
    hint = (
        " What a script does, beside defining, belongs under: if __name__ == '__main__'."
        if isinstance(error, SystemExit)
        else ""
    )
    where = f"{Path(frame.filename).name}, line {frame.lineno}"
    return InvalidConfigError(f"{what}: importing '{name}' raises {said} ({where}).{hint}")


def _modules_beside(name: str) -> Iterator[str]:
    """Yield the modules that are where one is not: in its package, or in the first folders that are searched."""
    package, _, _ = name.rpartition(".")
    where = list(getattr(sys.modules.get(package), "__path__", ())) if package else sys.path[:2]
    for module in pkgutil.iter_modules(where):
        yield f"{package}.{module.name}" if package else module.name
