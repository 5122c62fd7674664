import copy
import enum
import inspect
import pickle
import typing

import lightning as L
import numpy as np
import optuna
import pytest
import torch
from torch import nn

from lightningtune import SimpleSearchSpace, tunable
from lightningtune.errors import SearchSpaceError
from lightningtune.search.tunable import search_space_of


class Plain(L.LightningModule):
    def __init__(self, lr: float = 0.1, hidden: int = 4, act: nn.Module | None = None, name: "str" = "n"):
        super().__init__()
        self.save_hyperparameters(ignore=["act"])
        self.act, self.layer = act, nn.Linear(2, hidden)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


before = {"signature": inspect.signature(Plain), "hints": typing.get_type_hints(Plain.__init__), "class": Plain}
Net = tunable(search_space={"lr": ("uniform", 0.0, 1.0)})(Plain)


@tunable(search_space={"hidden": ("int", 2, 8), "lr": ("uniform", 2.0, 3.0)})
class Child(Net):
    pass


@tunable(search_space={"batch_size": ("int", 2, 8)})
class Data(L.LightningDataModule):
    def __init__(self, batch_size: int = 4):
        super().__init__()
        self.batch_size = batch_size


@tunable(search_space={"lr": ("uniform", 0, 1), "anything": ("int", 1, 2)})
class Open(L.LightningModule):
    def __init__(self, **kwargs):
        super().__init__()
        self.given = kwargs


def trial(**params):
    return optuna.trial.FixedTrial(params)


def test_the_class_is_the_same_class():
    assert Net is before["class"]
    assert inspect.signature(Net) == before["signature"]
    assert typing.get_type_hints(Net.__init__) == before["hints"]
    assert pickle.loads(pickle.dumps(Net)) is Net
    assert Net().hparams.lr == 0.1
    assert copy.deepcopy(Net(lr=0.3)).hparams.lr == 0.3


def test_it_suggests_and_constructs():
    net = Net.from_trial(trial(lr=0.5), hidden=3)
    assert type(net) is Net
    assert dict(net.hparams) == {"lr": 0.5, "hidden": 3, "name": "n"}
    assert type(net.hparams.lr) is float


def test_fixed_arguments_win_and_are_not_sampled():
    asked = optuna.create_study().ask()
    assert Child.from_trial(asked, lr=7.0).hparams.lr == 7.0
    assert set(asked.params) == {"hidden"}


def test_a_checkpoint_loads_with_the_class(tmp_path):
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(4, 2)))
    trainer = L.Trainer(
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        default_root_dir=tmp_path,
    )
    trainer.fit(Net.from_trial(trial(lr=0.25)), loader)
    trainer.save_checkpoint(tmp_path / "net.ckpt")
    loaded = Net.load_from_checkpoint(tmp_path / "net.ckpt", weights_only=True)
    assert type(loaded) is Net
    assert loaded.hparams.lr == 0.25


def test_a_subclass_inherits_extends_and_overrides():
    class Heir(Net):
        pass

    assert search_space_of(Heir) == search_space_of(Net) == SimpleSearchSpace({"lr": ("uniform", 0.0, 1.0)})
    assert search_space_of(Child) == SimpleSearchSpace({"hidden": ("int", 2, 8), "lr": ("uniform", 2.0, 3.0)})
    assert type(Heir.from_trial(trial(lr=0.5))) is Heir


def test_a_heir_without_the_parameter_is_told_so():
    class Narrow(Net):
        def __init__(self, width: int = 3):
            super().__init__()

    with pytest.raises(SearchSpaceError, match="'lr' is not a parameter of Narrow.__init__"):
        Narrow.from_trial(trial(lr=0.5))


def test_a_datamodule_is_tunable_too():
    assert Data.from_trial(trial(batch_size=6)).batch_size == 6


def test_kwargs_swallow_any_name():
    assert Open.from_trial(trial(lr=0.5, anything=1), other=3).given == {"lr": 0.5, "anything": 1, "other": 3}


def test_kwargs_are_followed_to_the_base_class():
    class Passing(Plain):
        def __init__(self, extra: int = 1, **kwargs):
            super().__init__(**kwargs)

    tunable(search_space={"extra": ("int", 1, 2), "hidden": ("int", 2, 8)})(Passing)
    with pytest.raises(SearchSpaceError, match="Did you mean 'hidden'"):
        tunable(search_space={"hiden": ("int", 2, 8)})(Passing)


def test_a_block_among_the_choices_is_built():
    @tunable(search_space={"act": ("categorical", [{"class_path": "torch.nn.ELU", "init_args": {"alpha": 2.0}}, None])})
    class WithBlock(Plain):
        pass

    assert WithBlock.from_trial(trial(act="ELU(alpha=2.0)", lr=0.5)).act.alpha == 2.0
    assert WithBlock.from_trial(trial(act=None, lr=0.5)).act is None


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            {"lrr": ("uniform", 0, 1)},
            "'lrr' is not a parameter of Fresh.__init__. Did you mean 'lr'. It takes: lr, hidden, act, name",
        ),
        ({"learning_rate": ("uniform", 0, 1)}, "Did you mean 'lr'"),
        ({"hidden": ("uniform", 0, 1)}, "'hidden' is annotated int, but its search space holds 0.0"),
        ({"hidden": ("categorical", [3, "a"])}, "'hidden' is annotated int, but its search space holds 'a'"),
        ({"name": ("int", 1, 2)}, "'name' is annotated str"),
        ({"act": ("categorical", [{"class_path": "torch.nn.Relu"}])}, "'act' is annotated"),
        ({"lr": ("uniform", 1, 0)}, "low must not be above high"),
    ],
)
def test_a_mistake_is_refused_at_decoration(space, message):
    class Fresh(Plain):
        pass

    with pytest.raises(SearchSpaceError, match=message):
        tunable(search_space=space)(Fresh)


def test_only_a_class_is_decorated():
    with pytest.raises(SearchSpaceError, match="decorates a class"):
        tunable(search_space={"lr": ("uniform", 0, 1)})(lambda: None)


def test_the_space_of_a_bound_callable_is_its_classes():
    import functools

    assert search_space_of(functools.partial(Net, hidden=3)) is search_space_of(Net)
    assert search_space_of(Net.from_trial) is search_space_of(Net)
    assert search_space_of(print) is None


def test_from_trial_takes_a_trial_and_names_of_parameters():
    net = tunable(search_space={"lr": ("uniform", 0, 1)})(type("Net", (Plain,), {}))
    with pytest.raises(SearchSpaceError, match="takes an Optuna trial, but got 3"):
        net.from_trial(3)
    with pytest.raises(SearchSpaceError, match="'hiden' is not a parameter .* Did you mean 'hidden'"):
        net.from_trial(optuna.trial.FixedTrial({"lr": 0.5}), hiden=3)


# --- values and annotations --------------------------------------------------------------------------------------

RELU = {"class_path": "torch.nn.ReLU"}


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Typed:
    def __init__(
        self,
        w: int = 3,
        act: nn.Module = None,  # as most write it
        layers: list[nn.Module] = (),
        shape: tuple[int, int] = (1, 1),
        name: float | str = "n",
        colour: Colour = Colour.RED,
        unknown: "NoSuchType" = None,  # noqa: F821
        bare=None,
    ):
        self.given = {name: value for name, value in locals().items() if name != "self"}


def declared(space):
    return tunable(search_space=space)(type("Fresh", (Typed,), {}))


def test_the_space_is_left_as_it_is():
    space = SimpleSearchSpace({"layers": ("categorical", [[RELU], []]), "act": ("categorical", [RELU, None])})
    before = space.to_yaml()
    net = declared(space).from_trial(trial(layers='[{"class_path": "torch.nn.ReLU"}]', act="ReLU()"))
    assert space.to_yaml() == before
    assert type(net.given["layers"][0]) is type(net.given["act"]) is nn.ReLU


def test_a_trial_gives_what_the_annotations_ask_for():
    net = declared(
        {
            "shape": ("categorical", [[2, 2], [3, 3]]),
            "name": ("categorical", ["1e-3", "a"]),
            "colour": ("categorical", ["RED", "BLUE"]),
            "unknown": ("categorical", ["4", [1]]),
            "bare": ("categorical", ["4", None]),
            "act": ("categorical", [None]),
        }
    ).from_trial(trial(shape="[3, 3]", name="1e-3", colour="BLUE", unknown="4", bare="4", act=None))
    expected = {"shape": (3, 3), "name": "1e-3", "colour": Colour.BLUE, "unknown": "4", "bare": "4", "act": None}
    assert net.given == {"w": 3, "layers": ()} | expected


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"w": ("categorical", [4, None])}, "'w' is annotated int, but its search space holds None"),
        ({"w": ("categorical", [4, "8"])}, "'w' is annotated int, but its search space holds '8'"),
        ({"layers": ("categorical", [[None]])}, "'layers' is annotated"),
        ({"colour": ("categorical", ["GREEN"])}, "'colour' is annotated"),
        ({"shape": ("categorical", [[1, 2, 3]])}, "'shape' is annotated"),
    ],
)
def test_a_choice_that_does_not_fit_is_refused(space, message):
    with pytest.raises(SearchSpaceError, match=message):
        declared(space)


# --- functions of the trial --------------------------------------------------------------------------------------


def test_a_trial_gives_plain_numbers():
    values = {"w": np.int64(4), "name": np.float64(0.5), "shape": [np.int64(1), 2], "bare": np.float32(0.5)}
    given = declared(lambda trial: values).from_trial(trial()).given
    assert [type(given[name]) for name in values] == [int, float, tuple, float]
    assert [type(n) for n in given["shape"]] == [int, int]


def test_what_is_no_yaml_value_passes_as_it_is():
    act, array = nn.ReLU(), np.zeros(2)
    given = declared(lambda trial: {"act": act, "w": array}).from_trial(trial()).given
    assert given["act"] is act
    assert given["w"] is array


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda trial: trial.suggest_int("ww", 1, 2) and None, "'ww' is not a parameter of Fresh.__init__"),
        (lambda trial: {"shap": trial.suggest_int("w", 1, 2)}, "Did you mean 'shape'"),
        (lambda trial: {"w": trial.suggest_float("w", 1, 2)}, "'w' is annotated int"),
        (lambda trial: {} if trial.number < 4 else {"model.w": 3}, "Did you mean 'w'"),
        (lambda trial: trial.suggest_int("w", 2, 1), "'w'"),
    ],
)
def test_a_function_is_tried_at_decoration(fn, message):
    with pytest.raises(SearchSpaceError, match=message):
        declared(fn)


def test_a_functions_own_error_is_left_for_later(capfd):
    calls = []

    def raising(asked):
        calls.append(asked.number)
        raise (RuntimeError, optuna.TrialPruned)[asked.number % 2]("later")

    net = declared(raising)
    assert calls == [0, 1, 2, 3, 4]
    assert capfd.readouterr().err == "", "Optuna says nothing of it"
    with pytest.raises(RuntimeError, match="later"):
        net.from_trial(optuna.create_study().ask())


# --- the decorator misused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", [lambda: tunable(Typed), lambda: tunable({"w": ("int", 1, 2)}), lambda: tunable()])
def test_the_space_is_given_by_name(use):
    with pytest.raises(SearchSpaceError, match=r"write @tunable\(search_space=...\)"):
        use()


def test_a_from_trial_of_the_classes_own_is_kept():
    class Own(Typed):
        @classmethod
        def from_trial(cls, trial):
            return "own"

    class Heir(Own):
        pass

    for cls in (Own, Heir):
        with pytest.raises(SearchSpaceError, match=f"{cls.__name__} has a from_trial of its own, of Own"):
            tunable(search_space={"w": ("int", 1, 2)})(cls)
        assert cls.from_trial(trial()) == "own"
    again = declared({"w": ("int", 1, 2)})
    assert tunable(search_space={"w": ("int", 3, 4)})(again) is again


@tunable(search_space={"act": ("categorical", [{"class_path": "torch.nn.ELU"}, {"class_path": "torch.nn.ReLU"}])})
class Activated(L.LightningModule):
    def __init__(self, act: nn.Module, width: int = 3):
        super().__init__()
        self.save_hyperparameters()
        self.act, self.layer = act, nn.Linear(width, 1)


@pytest.mark.filterwarnings("ignore:Attribute 'act' is an instance of `nn.Module`")  # Lightning's, without @tunable
def test_a_block_is_saved_as_a_block():
    net = Activated.from_trial(optuna.trial.FixedTrial({"act": "ELU()"}), width=5)
    assert isinstance(net.act, nn.ELU)
    saved = {"act": {"class_path": "torch.nn.ELU"}, "width": 5}
    assert {name: value for name, value in net.hparams.items() if name != "_instantiator"} == saved
    assert "_instantiator" not in Activated(nn.ReLU()).hparams
