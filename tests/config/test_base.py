import json

import lightning as L
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import Line, Points

from lightningtune.config.base import load_base_config, with_limits_of
from lightningtune.config.schema import Schema, check_names
from lightningtune.errors import ConfigurationError, InvalidConfigError
from lightningtune.training.build import Blueprint
from lightningtune.training.sections import NAMED


def test_a_config_comes_from_yaml_json_or_a_mapping(tmp_path):
    config = {"model": {"lr": 1e-05}, "trainer": {"max_epochs": 3}, "seed_everything": 1}
    (tmp_path / "c.yaml").write_text(
        "model: {lr: 1e-5}\ntrainer: {max_epochs: 3}\nseed_everything: 1\nckpt_path: null\n"
    )
    (tmp_path / "c.json").write_text(json.dumps(config))
    assert load_base_config(tmp_path / "c.yaml") == load_base_config(str(tmp_path / "c.json")) == config
    copied = load_base_config(config)
    copied["model"]["lr"] = 3
    assert config["model"]["lr"] == 1e-05
    assert load_base_config(None) == {}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"trainr": {}}, "no section 'trainr'. Did you mean 'trainer'. Allowed: model, data, trainer, seed_everything"),
        ({"optimizer": {"lr": 1}}, "no section 'optimizer'"),
        ({"max_epochs": 3}, "no section 'max_epochs'. Did you mean 'trainer.max_epochs'"),
        ({"model": [1]}, r"'model' must be a mapping, but is \[1\]"),
        ({"seed_everything": "one"}, "seed_everything must be"),
        ({"seed_everything": -1}, "seed_everything must be"),
        ([1], "base_config must be a file's path or a mapping"),
        ({"model": {"_target_": "nets.Line"}}, "model: '_target_' is Hydra's.*write a model"),
    ],
)
def test_a_config_of_another_form_is_refused(config, message):
    with pytest.raises(InvalidConfigError, match=message):
        load_base_config(config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model": {"lrr": 1}}, "'model.lrr' leads nowhere in the config. Did you mean 'model.lr'"),
        ({"model": {"class_path": "nets.Line", "init_args": {"lrr": 1}}}, "Did you mean 'model.init_args.lr'"),
        ({"data": {"batchsize": 1}}, "Did you mean 'data.batch_size'"),
        ({"model": {"class_path": "nets.Lines"}}, "model: the module 'nets' has no 'Lines'. Did you mean 'Line'"),
        (
            {"model": {"class_path": "no_such.Module"}},
            "there is no module 'no_such', which 'no_such.Module'",
        ),
        (
            {"model": {"act": {"class_path": "nets.Line", "init_args": {"widht": 1}}}},
            "Did you mean 'model.act.init_args.width'",
        ),
        (
            {"model": {"act": [{"class_path": "nets.Line", "init_args": {"x": 1}}]}},
            "'model.act.0.init_args.x' leads nowhere",
        ),
    ],
)
def test_every_name_is_checked_down_to_nested_blocks(config, message):
    with pytest.raises(InvalidConfigError, match=message):
        check_names(Schema(Line, Points), config)


def test_a_section_without_a_class_asks_for_one():
    with pytest.raises(InvalidConfigError, match="names no class for 'model': give it as 'model.class_path'"):
        Schema().find({}, "model.lr")


def test_free_mappings_hold_what_they_like():
    check_names(Schema(Line, Points), {"model": {"act": {"any": {"thing": 1}}}})


wild = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just(object()) | st.just({1}),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["class_path", "init_args", "lr", "callbacks", "x"]) | st.integers(), inner, max_size=3
        )
    ),
    max_leaves=6,
)
sections = st.dictionaries(st.sampled_from(["model", "data", "trainer", "seed_everything", "trainr"]), wild, max_size=4)


@pytest.mark.slow
@settings(deadline=None)
@given(wild | sections)
def test_any_base_config_is_read_or_refused_in_a_sentence(given_config):
    said = ""
    try:
        config = load_base_config(given_config)
        check_names(Schema(Line, Points, L.Trainer, NAMED), config)
        Blueprint(Schema(Line, Points, L.Trainer, NAMED), config).check(config)
    except ConfigurationError as error:
        said = str(error)
    assert "\n" not in said


def test_only_the_limits_change_and_nothing_is_changed_in_place():
    config = {"model": {"lr": 1}, "trainer": {"max_epochs": 5, "max_time": "1h", "devices": 2}}
    now = {"model": {"lr": 2}, "trainer": {"max_steps": 9, "devices": 1}}
    assert with_limits_of(config, now) == {"model": {"lr": 1}, "trainer": {"devices": 2, "max_steps": 9}}
    assert config["trainer"]["max_epochs"] == 5
    assert with_limits_of({}, {}) == {"trainer": {}}
