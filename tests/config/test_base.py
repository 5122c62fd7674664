import json

import pytest
from nets import Line, Points

from lightningtune.config.base import check_names, load_base_config
from lightningtune.config.overrides import Schema
from lightningtune.errors import ConfigError


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
        ({"model": [1]}, r"'model' must be a mapping, but is \[1\]"),
        ({"seed_everything": "one"}, "seed_everything must be"),
        ({"seed_everything": -1}, "seed_everything must be"),
        ([1], "base_config must be a file's path or a mapping"),
    ],
)
def test_a_config_of_another_form_is_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        load_base_config(config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model": {"lrr": 1}}, "'model.lrr' leads nowhere in the config. Did you mean 'model.lr'"),
        ({"model": {"class_path": "nets.Line", "init_args": {"lrr": 1}}}, "Did you mean 'model.init_args.lr'"),
        ({"data": {"batchsize": 1}}, "Did you mean 'data.batch_size'"),
        ({"model": {"class_path": "nets.Lines"}}, "model: 'nets.Lines' cannot be imported. Did you mean 'Line'"),
        ({"model": {"class_path": "no_such.Module"}}, "'no_such.Module' cannot be imported"),
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
    with pytest.raises(ConfigError, match=message):
        check_names(Schema(Line, Points), config)


def test_free_mappings_hold_what_they_like():
    check_names(Schema(Line, Points), {"model": {"act": {"any": {"thing": 1}}}})
