"""Reading and writing the files of a study: YAML or JSON in, YAML out, never half a file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
import secrets
import shutil
import stat
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lightningtune.errors import InvalidConfigError

_AT_ONCE = 2**20


class _Loader(yaml.SafeLoader):
    """Reads scalars as jsonargparse does, and so LightningCLI: ``1e-5`` is a number, and a date is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the class of PyYAML's that this replaces it of
        first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct what a node holds; whatever is raised names its line."""
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # a date that there is not, a number that is none
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from error


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    """Refuse a key that is given twice: PyYAML would keep the last without a word."""
    seen: set[str] = set()
    for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"):
        if key.value in seen:
            again = f"the key '{key.value}' is given twice"
            raise yaml.constructor.ConstructorError(None, None, again, key.start_mark)
        seen.add(key.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


class _Dumper(yaml.SafeDumper):
    """Writes repeated values in full: anchors in a config help nobody."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for kind in (_Loader, _Dumper):  # what is read as a number must be quoted where it is text
    kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
        list("-+0123456789."),
    )


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # PyYAML reads a bare or single-quoted NEL (U+0085) back as a space: what does not print is escaped
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _represent_text)


def load_yaml(text: str, source: str = "YAML") -> Any:
    """Parse YAML (and so JSON too), safely, with ``1e-5`` read as a number.

    Args:
        text: the document.
        source: what it is called in an error.

    Raises:
        InvalidConfigError: when it is not YAML.
    """
    try:
        return _Loader(text).get_single_data()
    except (yaml.YAMLError, RecursionError) as error:
        raise InvalidConfigError(f"{source} is not valid YAML: {_describe(error)}") from error


def _describe(error: Exception) -> str:
    """Say in a line what is wrong with YAML or JSON, and where."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply."
    parts: list[str | None] = [str(error)]
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        where = f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
        parts = [where, error.context, error.problem]
    return f"{' '.join(', '.join(filter(None, parts)).split()).rstrip('.')}."


def dump_yaml(value: Any) -> str:
    """Write plain values as YAML, keys in their own order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


_CONTROL = re.compile("[\x7f-\x9f\ud800-\udfff]")
"""Characters that JSON may hold as they are, but that steer a terminal or cannot be encoded."""


def dump_json(value: Any) -> str:
    """Write a value as JSON: of a dataclass its fields, of a path its text, of NaN and infinity null.

    Example:
        >>> print(dump_json({"values": (1.5, float("nan")), "path": Path("a")}))
        {
          "values": [
            1.5,
            null
          ],
          "path": "a"
        }
    """
    text = json.dumps(_as_json(value), indent=2, ensure_ascii=False)
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _as_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (int, str, type(None))) else str(value)


def expand_home(path: str | os.PathLike[str]) -> Path:
    """Return a path in which ``~`` is the user's home, as a shell has it.

    Every path that somebody gives goes through it: in a study file or behind a ``=`` no shell does it.

    Example:
        >>> expand_home("~/study.yaml") == Path.home() / "study.yaml"
        True
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111  # Path.expanduser() fails where there is no such user


def read_mapping(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a mapping from a ``.yaml``, ``.yml`` or ``.json`` file.

    Raises:
        InvalidConfigError: when the file is missing, malformed, or not a mapping at its top.
    """
    path = expand_home(path)
    try:
        text = _read_text(path)
    except FileNotFoundError:
        near = sorted(str(p) for p in path.parent.glob("*") if p.suffix in {".yaml", ".yml", ".json"})
        known = f" In its folder: {', '.join(near[:5])}." if near else ""
        raise InvalidConfigError(f"The file '{path}' does not exist.{known}") from None
    except (OSError, ValueError) as error:  # the name may hold what no file's name can
        raise InvalidConfigError(f"The file '{path}' cannot be read: {error}") from error
    if path.suffix == ".json":
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:  # an integer may have too many digits for Python
            raise InvalidConfigError(f"'{path}' is not valid JSON: {_describe(error)}") from None
    else:
        value = load_yaml(text, f"'{path}'")
    value = {} if value is None else value
    if not isinstance(value, Mapping):
        raise InvalidConfigError(f"'{path}' must hold a mapping at its top, but holds a {type(value).__name__}.")
    return dict(value)


def _read_text(path: Path) -> str:
    """Read a text file; a pipe or a device, which may have no end, is refused."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is a folder" if stat.S_ISDIR(found.st_mode) else "it is a pipe or a device, and not a file")
    return path.read_text(encoding="utf-8")


def last_lines(path: Path, count: int) -> list[str]:
    """Return the last lines of a text file that are not blank; none where there is no file."""
    if not path.is_file():  # a pipe may have no end
        return []
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 1000 * count))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a name beside ``path`` that nobody can guess; what is created there takes the place of ``path`` at the end.

    It vanishes on an error. No link is followed: one that is in the file's place is replaced.

    Raises:
        InvalidConfigError: when a folder is in its place, or a file in its folder's.
        OSError: naming the file, when it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InvalidConfigError(f"'{path.parent}' is to be a folder, but it is a file. Move it away.") from None
    if path.is_dir() and not path.is_symlink():
        raise InvalidConfigError(f"The file '{path}' is to be written, but a folder is in its place. Move it away.")
    temporary = path.with_name(f".{path.name[:50]}.{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step: a reader sees the old file or the new one. A pipe or a device is written to.

    Raises:
        InvalidConfigError, OSError: as `replacing` says.
    """
    is_stream = path.exists() and not path.is_file() and not path.is_dir() and not path.is_symlink()
    if is_stream or path.absolute().parent == Path("/dev"):  # /dev/stdout is a link, and the machine's
        path.write_text(text, encoding="utf-8")
        return
    with replacing(path) as temporary, temporary.open("xb") as file:
        file.write(text.encode())


def check_sums(path: Path) -> None:
    """Notice a byte of a zip archive that is not as it was written: torch does not look, and would load wrong weights.

    A sum of zero is none: torch can be told to write no others.

    Raises:
        Exception: any, when it is torn, is no archive or cannot be read; the archive's own fields may be anything.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as content:
                while entry.CRC and content.read(_AT_ONCE):
                    pass


def put(source: Path, target: Path) -> None:
    """Put a file in another place too, in one step, by a hard link where the file system has them."""
    with replacing(target) as temporary:
        try:
            os.link(source, temporary, follow_symlinks=False)
        except (OSError, NotImplementedError):  # Windows knows no link to a link
            with source.open("rb") as content, temporary.open("xb") as file:
                shutil.copyfileobj(content, file)
