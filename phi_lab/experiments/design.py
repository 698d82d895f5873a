"""What an experiment is: its question, arms and claims, and how one arm of one seed is trained.

Arms are compared by contrasts, or they are nested (chains, trainings in them, evaluations of these) and their spread is
divided by levels. A seed is a whole *chain*: it starts from the models that `phi-lab experiment ladder` made with the
same seed, or makes them. An experiment that makes none can also start from the shipped checkpoints; these are one
chain, of which its seeds are then only stage seeds, and every row says so (`unit`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from phi_lab.config.schema import RunConfig
from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.core.run_folder import RunFolder, StageFolder
from phi_lab.report import contrasts, nested
from phi_lab.report.components import Nest
from phi_lab.report.contrasts import Contrast

if TYPE_CHECKING:
    from phi_lab.stages.training import TrainingResult

Log = Callable[[str], None]
DIAL = 0.3  # the temperature of the arm that only samples cooler
ONE_CHAIN = "stage seeds on one chain"  # what seeds are that all start from the shipped checkpoints


@dataclass(frozen=True)
class Trial:
    """One seed of an experiment. settings: of the experiment, for the profile. source: the chain whose models and data
    it starts from; None where it makes its own or starts from the shipped checkpoints. chain: the seed of the chain;
    None for the shipped checkpoints.
    """

    run: RunFolder
    seed: int
    config: RunConfig
    settings: Any
    chain: int | None = None
    source: RunFolder | None = None

    def model(self, stage: str) -> Path:
        """The folder of a stage's model, which arms start from. Chains share the shipped base."""
        return paths.SHIPPED / stage if self.source is None or stage == "base" else self.source.stage(stage).model

    def folder(self, arm: str) -> StageFolder:
        """Where an arm is trained."""
        return StageFolder(self.run.path / arm)


@dataclass(frozen=True)
class Experiment:
    """A question with its arms, as it was fixed before the first run. It has contrasts or nests; the first is primary.
    """

    name: str
    question: str
    arms: Mapping[str, str]  # name -> what it is, in the order in which they run
    seeds: range
    stage: str  # a chain must have finished it: arms start from its model; "base": a seed makes its own chains
    makes_chains: bool  # whether a seed without --chains trains its own; else all start from the shipped checkpoints
    settings: Mapping[str, Any]  # by profile
    problems: int  # times as many as the course measures on: 500 of each benchmark in the profile lab
    prepare: Callable[[Trial, Log], None]  # what the arms share
    start: Callable[[Trial, str], Path]  # the model that an arm starts from
    train: Callable[[Trial, str, Path], TrainingResult]  # trains an arm in a folder
    untrained: Mapping[str, float]  # arms that only measure their start -> at which temperature
    notes: Callable[[Trial, str], dict]  # what else a row says of an arm
    extra_forward: Callable[[Trial, str], int] = lambda trial, arm: 0  # tokens read before the training of an arm
    contrasts: tuple[Contrast, ...] = ()
    nests: tuple[Nest, ...] = ()
    evaluation: Mapping[str, Any] = field(default_factory=dict)  # how it measures in another way than the others
    evaluation_seed: Callable[[Trial, str], int] = lambda trial, arm: trial.seed

    @property
    def claims(self) -> tuple[Contrast, ...] | tuple[Nest, ...]:
        """What is tested: its contrasts, or the levels of its nests."""
        return self.contrasts or self.nests

    @property
    def reading(self) -> ModuleType:
        """The module whose `primary` and `summary` read its rows."""
        return contrasts if self.contrasts else nested


def chains_in(folder: Path, stage: str) -> dict[int, RunFolder]:
    """The chains of a folder of `phi-lab experiment ladder` that have finished `stage`, by seed. Raises UserError where
    there is none.
    """
    found = {int(path.name[5:]): RunFolder(path) for path in folder.glob("seed-*") if path.name[5:].isdecimal()}
    finished = {seed: found[seed] for seed in sorted(found) if found[seed].stage(stage).finished}
    if not finished:
        raise UserError(f"{folder}: no chain that has finished {stage}; `phi-lab experiment ladder` makes them")
    return finished
