import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightningtune.errors import InvalidConfigError
from lightningtune.files import dump_yaml, last_lines, load_yaml, put, read_mapping, replacing, write_text

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_plain_values_survive_yaml(value):
    assert load_yaml(dump_yaml(value)) == value


@pytest.mark.parametrize(
    ("text", "value"), [("1e-5", 1e-5), ("-2E3", -2000.0), (".5e1", 5.0), ("1.5", 1.5), ("1e5x", "1e5x")]
)
def test_scientific_notation_is_a_number(text, value):
    assert load_yaml(text) == value
    assert type(load_yaml(text)) is type(value)


def test_yaml_runs_no_code():
    with pytest.raises(InvalidConfigError, match="not valid YAML"):
        load_yaml("!!python/object/apply:os.system ['true']", "the config")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "a: [", "a.yaml' is not valid YAML"),
        ("a.json", "{", "a.json' is not valid JSON"),
        ("a.yaml", "- 1", "must hold a mapping at its top, but holds a list"),
    ],
)
def test_a_malformed_file_is_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidConfigError, match=message):
        read_mapping(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: !!int x", "line 2, column 4, invalid literal for int"),
        ("b: !!timestamp 2024-13-45", "line 1, column 4, month must be in 1..12"),
        (f"a:\n  b: {'9' * 5000}", "line 2, column 6, Exceeds the limit"),
        ("a: 1\nb: \0", "unacceptable character #x0000"),
        (f"a: {'[' * 5000}", "it is nested too deeply"),
        ("\n" * 9 + f"a: {'[' * 120}{']' * 120}", None),
    ],
)
def test_whatever_a_loader_fails_at_is_one_line_with_file_and_line(tmp_path, text, said):
    (tmp_path / "a.yaml").write_text(text)
    if said is None:
        assert read_mapping(tmp_path / "a.yaml")
        return
    with pytest.raises(InvalidConfigError) as caught:
        read_mapping(tmp_path / "a.yaml")
    assert f"a.yaml' is not valid YAML: {said}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [(f'{{"a": {"[" * 200_000}', "nested too deeply"), (f'{{"a": {"9" * 5000}}}', "Exceeds the limit")],
)
def test_whatever_json_fails_at_is_one_line(tmp_path, text, said):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InvalidConfigError, match=f"a.json' is not valid JSON: .*{said}"):
        read_mapping(tmp_path / "a.json")


@given(st.text(st.sampled_from("[]{}:-,!&*'\"|>%@`# \n\t0123456789.eE+~<=abc\0\ud800"), max_size=60))
def test_any_text_is_a_value_or_one_line(text):
    said = ""
    try:
        load_yaml(text, "the config")
    except InvalidConfigError as error:
        said = str(error)
    assert not said or said.startswith("the config is not valid YAML: ")
    assert "\n" not in said


@pytest.mark.parametrize("text", ["2024-03-01", "2024-03-01 10:00:00", "2024-03-01T10:00:00Z", "2024-13-45"])
def test_a_date_is_text_as_lightning_cli_reads_it(text):
    assert load_yaml(text) == text == load_yaml(dump_yaml(text))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs fifos")
def test_what_is_no_file_or_has_no_end_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "endless.yaml").symlink_to("/dev/zero")
    (tmp_path / "folder.yaml").mkdir()
    for name, said in (
        ("pipe", "it is a pipe or a device, and not a file"),
        ("endless", "it is a pipe or a device"),
        ("folder", "it is a folder"),
        ("a\0", "null"),
    ):
        with pytest.raises(InvalidConfigError, match=f"cannot be read: .*{said}"):
            read_mapping(tmp_path / f"{name}.yaml")


def test_a_missing_file_names_its_neighbours(tmp_path):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(InvalidConfigError, match="confg.yaml' does not exist. In its folder: .*config.yaml"):
        read_mapping(tmp_path / "confg.yaml")
    assert read_mapping(tmp_path / "config.yaml") == {}


def test_a_file_that_is_not_text_is_named(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InvalidConfigError, match="cannot be read"):
        read_mapping(tmp_path / "a.yaml")


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_bytes(b"ne")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


@given(st.from_regex(r"[-+]?[0-9.]{1,3}([eE][-+]?[0-9]{1,2})?", fullmatch=True))
def test_text_that_looks_like_a_number_stays_text(text):
    assert load_yaml(dump_yaml([text])) == [text]


def test_a_key_that_is_given_twice_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("lr: [uniform, 0, 1]\nwidth: {type: int, low: 1, high: 2}\nlr: [uniform, 0, 2]\n")
    with pytest.raises(
        InvalidConfigError, match="a.yaml' is not valid YAML: line 3, column 1, the key 'lr' is given twice"
    ):
        read_mapping(tmp_path / "a.yaml")
    assert load_yaml("a: &base {x: 1, y: 1}\nb: {<<: *base, y: 2}") == {"a": {"x": 1, "y": 1}, "b": {"x": 1, "y": 2}}


def test_a_folder_in_a_files_place_is_named(tmp_path):
    (tmp_path / "a.yaml").mkdir()
    with pytest.raises(InvalidConfigError, match=r"The file '.*a.yaml' is to be written, but a folder is in its place"):
        write_text(tmp_path / "a.yaml", "")
    (tmp_path / "b").touch()
    with pytest.raises(InvalidConfigError, match=r"b' is to be a folder, but it is a file"):
        write_text(tmp_path / "b" / "a.yaml", "")


def test_a_link_is_replaced_and_not_written_through(tmp_path):
    (tmp_path / "elsewhere").write_text("old")
    (tmp_path / "elsewhere.d").mkdir()
    for target in ("elsewhere", "elsewhere.d", "nowhere"):
        link = tmp_path / "report.html"
        link.symlink_to(tmp_path / target)
        write_text(link, "new")
        assert not link.is_symlink()
        assert link.read_text() == "new"
        link.unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "elsewhere.d"]
    assert (tmp_path / "elsewhere").read_text() == "old"


def test_a_name_that_is_guessed_is_not_written_to(tmp_path):
    path, secret = tmp_path / "file.txt", tmp_path / "secret"
    secret.write_text("kept")
    with replacing(path) as temporary:
        assert re.fullmatch(r"\.file\.txt\.[0-9a-f]{16}\.tmp", temporary.name)
        temporary.write_bytes(b"new")
    assert (path.read_bytes(), secret.read_text()) == (b"new", "kept")


def test_a_name_may_be_as_long_as_any(tmp_path):
    path = tmp_path / ("ü" * 127)
    write_text(path, "text")
    assert path.read_text() == "text"


def test_a_link_that_is_put_elsewhere_stays_a_link(tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "best.ckpt").symlink_to(tmp_path / "secret")
    put(tmp_path / "best.ckpt", tmp_path / "best" / "model.ckpt")
    assert (tmp_path / "best" / "model.ckpt").is_symlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs fifos")
def test_a_pipe_is_written_to_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "text")
    assert os.read(reader, 100) == b"text"
    os.close(reader)
    assert pipe.is_fifo()
    assert last_lines(pipe, 1) == []


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="needs /dev/stdout")
def test_the_machines_own_links_stay(tmp_path):
    script = (
        "from pathlib import Path; from lightningtune.files import write_text; write_text(Path('/dev/stdout'), 'é')"
    )
    before = Path("/dev/stdout").readlink()
    piped = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    with (tmp_path / "file").open("w") as file:
        subprocess.run([sys.executable, "-c", script], stdout=file, check=True)
    assert piped.stdout == (tmp_path / "file").read_bytes() == "é".encode()
    assert Path("/dev/stdout").readlink() == before


def test_a_file_that_cannot_be_written_is_named_and_not_the_temporary_one(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(OSError, match=re.escape(f"'{path}'")) as caught, replacing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC
