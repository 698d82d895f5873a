"""`phi-lab experiment`: independent repetitions of the whole chain, each stage beside its controls; reward hacking; and
the experiments on the paper's questions (`phi_lab/experiments/`).
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from phi_lab.cli.options import add_command, at_least, between, check_out, seed
from phi_lab.config import presets

# Of phi_lab/experiments/, which is imported later.
QUESTIONS = ("mid_training", "one_batch", "rl_devices", "variance", "variance_bases")
DEFAULT_SEEDS = 6  # of chains
MOST_SEEDS = 10_000


def add_parser(commands) -> None:
    """Add `experiment` and its options."""
    parser = add_command(
        commands, "experiment", run, "run independent chains, or an experiment on one of the paper's questions",
        "phi-lab experiment ladder --seeds 10-21 --jobs 2 --out runs/twelve",
    )
    parser.add_argument("which", nargs="?", choices=["ladder", "chain", "publish", "reward-hacking", *QUESTIONS],
                        help="ladder: all stages with their controls at equal FLOPs, a process a chain; chain: one of "
                        "them, in this process; publish: show the chains or the experiment of OUT in README and docs/; "
                        "reward-hacking: GRPO of the base against a sloppy and a strict verifier; the others: see "
                        "--list")
    parser.add_argument("--list", action="store_true", help="show the experiments with their verdicts, and run nothing")
    parser.add_argument("--json", action="store_true", help="--list as JSON; effects in points")
    parser.add_argument("--seeds", type=seeds, default=None, metavar="A-B",
                        help=f"the seeds, one a chain; a single number says how many, from --first-seed on (default: "
                        f"{DEFAULT_SEEDS}, of an experiment those that its file names)")
    parser.add_argument("--first-seed", "--first", dest="first_seed", type=seed, default=0, metavar="SEED",
                        help="seed of the first one, where --seeds says how many")
    parser.add_argument("--jobs", type=at_least(1), default=1, metavar="N",
                        help="chains or seeds side by side, one thread each")
    parser.add_argument("--chains", type=Path, default=None, metavar="DIR",
                        help="of an experiment: OUT of a finished ladder, whose models its seeds start from (default: "
                        "a seed makes its own; of one_batch and rl_devices all start from the shipped checkpoints, "
                        "which are one chain)")
    parser.add_argument("--in-process", action="store_true",
                        help="of an experiment: one seed after another in this process")
    parser.add_argument("--arms", default=None, metavar="A,B", help="of chains: only these controls (default: all)")
    parser.add_argument("--without-controls", action="store_true", help="of chains: the stages alone")
    parser.add_argument("--profile", default="lab", help="smoke or lab; a chain is a whole run and its controls")
    parser.add_argument("--out", type=Path, default=None, help="folder of the chains; an existing one is continued")


def seeds(text: str) -> int | range:
    """An argparse type: "6-17", the seeds from 6 to 17, or how many."""
    first, dash, last = text.partition("-")
    if not dash:
        return between(1, MOST_SEEDS)(text)
    if not first or not last:
        raise argparse.ArgumentTypeError(f"{text}: a range has a seed on both sides, such as 6-17")
    if seed(first) > seed(last):
        raise argparse.ArgumentTypeError(f"{text}: the smaller seed comes first")
    if seed(last) - seed(first) >= MOST_SEEDS:
        raise argparse.ArgumentTypeError(f"{text}: more than {MOST_SEEDS:,} seeds")
    return range(seed(first), seed(last) + 1)


def run(options) -> None:
    """Run the chains and print their tables, or publish them; run both arms of reward hacking for each seed; run an
    experiment; or list them.
    """
    from phi_lab.core import lifeline
    from phi_lab.core.errors import UserError

    if options.list:
        _list(options)
        return
    presets.run_config("cpu", options.profile)  # raises for an unknown profile
    if not options.which:
        raise UserError(f"name what to run, such as ladder or {QUESTIONS[0]}, or give --list")
    if not options.out:
        raise UserError("--out is missing: the folder of the chains")
    check_out(options.out)
    if options.which not in QUESTIONS and (options.chains or options.in_process):
        raise UserError(f"--chains and --in-process go with {', '.join(QUESTIONS)}")
    of_chains = options.which in ("ladder", "chain")
    if (options.arms or options.without_controls) and not of_chains:
        raise UserError(f"--arms and --without-controls go with ladder and chain, not with {options.which}")
    if options.jobs > 1 and options.which in ("chain", "reward-hacking", "publish"):
        raise UserError(f"--jobs goes with ladder and experiments: {options.which} is one process")
    if options.seeds is not None and options.which == "publish":
        raise UserError("publish shows all seeds of --out: leave out --seeds")
    if lifeline.LAUNCHED_BY in os.environ:
        lifeline.die_with_parent()
    if options.which in QUESTIONS:
        _answer(options)
    else:
        _chains(options)


def _list(options) -> None:
    """Print the experiments with what they found."""
    from phi_lab.experiments import verdicts

    found = verdicts.listing()
    print(json.dumps(found, indent=1) if options.json else "\n\n".join(map(verdicts.in_words, found)))


def _seeds(options, default: range) -> range:
    if options.seeds is None:
        return default
    return options.seeds if isinstance(options.seeds, range) else range(
        options.first_seed, options.first_seed + options.seeds)


def _answer(options) -> None:
    """Run an experiment, and print its tables once all of its seeds are there."""
    from phi_lab.experiments import EXPERIMENTS, runner

    experiment = EXPERIMENTS[options.which]
    chosen = _seeds(options, experiment.seeds)
    if options.in_process:
        for one in chosen:
            print(runner.run_seed(experiment, options.out, one, profile=options.profile, chains=options.chains))
        return
    path = runner.run(experiment, options.out, chosen, profile=options.profile, jobs=options.jobs,
                      chains=options.chains)
    if len(chosen) > 1:
        print(runner.conclude(experiment, options.out))
    print(path)


def _chains(options) -> None:
    from phi_lab.core import files
    from phi_lab.pipeline import experiment, reward_hacking
    from phi_lab.report import replications

    if options.which == "publish":
        from phi_lab.experiments import publish

        if not publish.holds_an_experiment(options.out):
            replications.publish(options.out)
            return
        from phi_lab.lab import paper_questions

        publish.publish(options.out)
        paper_questions.refresh()
        return
    chosen = _seeds(options, range(options.first_seed, options.first_seed + DEFAULT_SEEDS))
    if options.which == "reward-hacking":
        reward_hacking.run(options.out, chosen, reward_hacking.CONFIGS[options.profile])
        print(options.out / "rows.jsonl")
        return
    arms = _arms(options)
    if options.which == "chain":
        for one in chosen:
            print(experiment.chain(options.out, one, profile=options.profile, arms=arms))
        return
    path = experiment.ladder(options.out, chosen, profile=options.profile, jobs=options.jobs, arms=arms)
    print(replications.summary(files.read_rows(path)))
    print(path)


def _arms(options) -> Sequence[str]:
    """The controls that were asked for."""
    from phi_lab.core.errors import UserError
    from phi_lab.pipeline.controls import ARMS

    if options.without_controls and options.arms:
        raise UserError("--without-controls and --arms: choose one")
    if options.without_controls:
        return ()
    return tuple(options.arms.split(",")) if options.arms else tuple(ARMS)
