"""The command line of train.py with one more subcommand: `python tune_from_inside.py tune --config config.yaml ...`."""

from train import DigitsCLI, main

from lightningtune.cli import TuneCLI


class TunedDigitsCLI(DigitsCLI, TuneCLI):
    """In a project of your own, TuneCLI takes the place of LightningCLI, and this class is not needed."""


if __name__ == "__main__":
    main(TunedDigitsCLI)
