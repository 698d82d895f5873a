"""The same order on many processes or machines: datatrove hands out tasks, `phi_lab.distill.shards` keeps what they bring.

Task r of N asks every N-th chunk of questions and writes its shards into the folder that all of them share. Who writes
a chunk does not change a byte of it, so tasks may die, move to another machine or run twice, and another number of them
goes on with the same folder. Which engine, and why this one: docs/decisions.md. How large a run: docs/distillation.md.

    phi-lab distill --teacher endpoint --teacher-url URL --questions 10000 --workers 4 --out runs/d

On Slurm, with the order that this command would have made (datatrove's documentation names every argument):

    from functools import partial
    from datatrove.executor import SlurmPipelineExecutor
    SlurmPipelineExecutor([partial(cluster.task, order)], tasks=64, time="24:00:00", partition="cpu",
                          logging_dir="runs/d/tasks").run()
    collect.collect(order)  # afterwards: asks nothing, filters everything
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, write_json
from phi_lab.core.progress import QUIET
from phi_lab.distill import jobs


def ask(order: jobs.DistillationJob, workers: int, say: Callable[[str], None] = print) -> None:
    """What `collect.ask` does, in `workers` processes on this machine.

    Raises UserError as it does, and without datatrove.
    """
    try:
        from datatrove.executor import LocalPipelineExecutor
        from loguru import logger
    except ImportError:
        raise UserError("--workers needs datatrove: pip install -c constraints.txt -e '.[cluster]'") from None
    logger.disable("datatrove")
    say(f"asking in {workers} processes; the bar is the first one's")
    LocalPipelineExecutor(
        [_Quiet(order)], tasks=workers, logging_dir=str(order.out / "tasks"), skip_completed=False
    ).run()
    for name in ("tokens_in", "tokens_out", "requests"):
        setattr(order.spending, name, sum(read_json(_spent(order.out, rank))[name] for rank in range(workers)))


def task(order: jobs.DistillationJob, data: object, rank: int, world_size: int) -> Iterator:
    """One task, in the form of a datatrove pipeline step. The budget is shared out evenly."""
    mine = replace(order, spending=replace(order.spending, budget=order.spending.budget / world_size))
    jobs.ask(mine, (rank, world_size))
    write_json(_spent(order.out, rank), asdict(mine.spending))
    return iter(())


class _Quiet:
    """A task in a process that shows a bar and our own errors, and no log of datatrove's."""

    def __init__(self, order: jobs.DistillationJob):
        self.order = order

    def __setstate__(self, state: dict) -> None:  # in the new process, before datatrove's first line
        from loguru import logger

        logger.disable("datatrove")
        self.__dict__ = state

    def __call__(self, data: object, rank: int, world_size: int) -> Iterator:
        os.environ[QUIET] = "1" if rank else ""
        return task(self.order, data, rank, world_size)


def _spent(out: Path, rank: int) -> Path:
    return out / "tasks" / "spending" / f"{rank:05d}.json"
