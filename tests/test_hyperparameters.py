"""The one private function of Lightning's that is used; these fail when it changes."""

import lightning as L
import torch

from lightningtune.hyperparameters import given_hyperparameters, has_block


class Module(L.LightningModule):
    def __init__(self, act, width: int = 3):
        super().__init__()
        self.save_hyperparameters()


def test_what_is_given_is_saved_and_told_to_be_built_again():
    with given_hyperparameters({"act": {"class_path": "torch.nn.ReLU"}, "width": 3}):
        module = Module(torch.nn.ReLU())
    assert module.hparams == {
        "act": {"class_path": "torch.nn.ReLU"},
        "width": 3,
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
    }
    from lightning.pytorch.cli import instantiate_module

    assert callable(instantiate_module)


def test_afterwards_all_is_as_before():
    with given_hyperparameters({"act": 1}):
        pass
    assert Module("relu").hparams == {"act": "relu", "width": 3}


def test_blocks_are_found_at_any_depth():
    assert has_block({"layers": [{"init_args": {"act": {"class_path": "torch.nn.ReLU"}}}]})
    assert not has_block({"layers": [1, "class_path"], "lr": 0.1})
