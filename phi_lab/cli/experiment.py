"""`phi-lab experiment`: independent repetitions of the whole chain, each stage beside its controls; reward hacking."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from phi_lab.cli.options import add_command, at_least, check_out, seed
from phi_lab.config import presets


def add_parser(commands) -> None:
    """Add `experiment` and its options."""
    parser = add_command(
        commands, "experiment", run, "run independent chains with every stage beside its controls, or publish them",
        "phi-lab experiment ladder --seeds 6-17 --jobs 2 --out runs/twelve",
    )
    parser.add_argument("which", choices=["ladder", "chain", "publish", "reward-hacking"],
                        help="ladder: all stages with their controls at equal FLOPs, a process a chain; chain: one of "
                        "them, in this process; publish: show the chains of OUT in docs/; reward-hacking: GRPO of the "
                        "base against a sloppy and a strict verifier")
    parser.add_argument("--seeds", type=seeds, default=6, metavar="A-B",
                        help="the seeds, one a chain; a single number says how many, from --first-seed on")
    parser.add_argument("--first-seed", "--first", dest="first_seed", type=seed, default=0, metavar="SEED",
                        help="seed of the first one, where --seeds says how many")
    parser.add_argument("--jobs", type=at_least(1), default=1, metavar="N",
                        help="chains side by side, one thread each")
    parser.add_argument("--arms", default=None, metavar="A,B", help="only these controls (default: all)")
    parser.add_argument("--without-controls", action="store_true", help="the stages alone")
    parser.add_argument("--profile", default="lab", help="smoke or lab; a chain is a whole run and its controls")
    parser.add_argument("--out", type=Path, required=True, help="folder of the chains; an existing one is continued")


def seeds(text: str) -> int | range:
    """An argparse type: "6-17", the seeds from 6 to 17, or how many."""
    first, dash, last = text.partition("-")
    if not dash:
        return at_least(1)(text)
    if seed(first) > seed(last):
        raise argparse.ArgumentTypeError(f"{text}: the smaller seed comes first")
    return range(seed(first), seed(last) + 1)


def run(options) -> None:
    """Run the chains and print their tables, or publish them; or run both arms of reward hacking for each seed."""
    presets.run_config("cpu", options.profile)  # raises for an unknown profile
    check_out(options.out)
    from phi_lab.core import files, lifeline
    from phi_lab.pipeline import experiment, reward_hacking
    from phi_lab.report import replications

    if lifeline.LAUNCHED_BY in os.environ:
        lifeline.die_with_parent()
    if options.which == "publish":
        replications.publish(options.out)
        return
    count = options.seeds
    chosen = count if isinstance(count, range) else range(options.first_seed, options.first_seed + count)
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
