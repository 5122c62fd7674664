import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightningtune.errors import ConfigError
from lightningtune.files import dump_yaml, load_yaml, read_mapping, replacing, write_text

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
    with pytest.raises(ConfigError, match="not valid YAML"):
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
    with pytest.raises(ConfigError, match=message):
        read_mapping(tmp_path / name)


def test_a_missing_file_names_its_neighbours(tmp_path):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ConfigError, match="confg.yaml' does not exist. In its folder: .*config.yaml"):
        read_mapping(tmp_path / "confg.yaml")
    assert read_mapping(tmp_path / "config.yaml") == {}


def test_a_file_that_is_not_text_is_named(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_mapping(tmp_path / "a.yaml")


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
