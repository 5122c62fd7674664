from lightningtune.config.limits import with_limits_of


def test_only_the_limits_change_and_nothing_is_changed_in_place():
    config = {"model": {"lr": 1}, "trainer": {"max_epochs": 5, "max_time": "1h", "devices": 2}}
    now = {"model": {"lr": 2}, "trainer": {"max_steps": 9, "devices": 1}}
    assert with_limits_of(config, now) == {"model": {"lr": 1}, "trainer": {"devices": 2, "max_steps": 9}}
    assert config["trainer"]["max_epochs"] == 5
    assert with_limits_of({}, {}) == {"trainer": {}}
