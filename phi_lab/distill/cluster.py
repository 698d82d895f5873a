"""The same job in many processes or on many machines: datatrove starts tasks, `shards.py` collects their rollouts.

Task r of N samples every N-th shard and writes it into the folder that all tasks share. A shard has the same bytes
whoever writes it, so tasks may die, move to another machine or run twice, and another number of tasks can continue
with the same folder. Why datatrove: docs/decisions.md. How large a run: docs/distillation.md.

    phi-lab distill --teacher endpoint --teacher-url URL --questions 10000 --workers 4 --out runs/d

On Slurm, with the `DistillationJob` that this command would have made (datatrove's documentation names every argument):

    from functools import partial
    from datatrove.executor import SlurmPipelineExecutor
    SlurmPipelineExecutor([partial(cluster.task, job)], tasks=64, time="24:00:00", partition="cpu",
                          logging_dir="runs/d/tasks").run()
    jobs.run_job(job)  # afterwards: samples nothing, filters everything
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, write_json
from phi_lab.core.lifeline import die_with_parent, forks_die_too
from phi_lab.core.progress import QUIET
from phi_lab.distill import jobs

SPENT = ("tokens_in", "tokens_out", "requests")
SAID = (*SPENT, "served")


def sample_rollouts(job: jobs.DistillationJob, workers: int, say: Callable[[str], None] = print) -> None:
    """Do what `jobs.sample_rollouts` does in `workers` processes on this machine.

    Raises UserError as it does, and without datatrove.
    """
    try:
        from datatrove.executor import LocalPipelineExecutor
        from loguru import logger
    except ImportError:
        raise UserError("--workers needs datatrove: pip install -c constraints.txt -e '.[cluster]'") from None
    logger.disable("datatrove")
    say(f"sampling in {workers} processes; the bar shows the first one's progress")
    executor = LocalPipelineExecutor(
        [_QuietTask(job)], tasks=workers, logging_dir=str(job.out / "tasks"), skip_completed=False
    )
    with forks_die_too():
        executor.run()
    spent = [read_json(_spending_file(job.out, rank), SAID) for rank in range(workers)]
    for name in SPENT:
        setattr(job.spending, name, sum(spending[name] for spending in spent))
    job.spending.served = sorted({name for spending in spent for name in spending["served"]})


def task(job: jobs.DistillationJob, data: object, rank: int, world_size: int) -> Iterator:
    """Task `rank` of `world_size`, in the form of a datatrove pipeline step, with an equal share of the budget that is
    left."""
    job = replace(job, spending=replace(job.spending, share=1 / world_size))
    jobs.sample_rollouts(job, (rank, world_size), say=print if rank == 0 else lambda line: None)
    write_json(_spending_file(job.out, rank), {name: getattr(job.spending, name) for name in SAID})
    return iter(())


class _QuietTask:
    """A task whose process shows a bar and our own errors, but none of datatrove's log."""

    def __init__(self, job: jobs.DistillationJob) -> None:
        self.job, self.pid = job, os.getpid()

    def __setstate__(self, state: dict) -> None:  # in the new process, before datatrove's first line
        from loguru import logger

        if state["pid"] != os.getpid():
            die_with_parent()
        logger.disable("datatrove")
        self.__dict__ = state

    def __call__(self, data: object, rank: int, world_size: int) -> Iterator:
        os.environ[QUIET] = "1" if rank else ""
        return task(self.job, data, rank, world_size)


def _spending_file(out: Path, rank: int) -> Path:
    return out / "tasks" / "spending" / f"{rank:05d}.json"
