"""`phi-lab experiment`: independent repetitions of the whole chain, each stage beside its control; reward hacking."""

from pathlib import Path

from phi_lab.cli.options import add_command, at_least, check_out, seed
from phi_lab.config import presets


def add_parser(commands) -> None:
    """Add `experiment` and its options."""
    parser = add_command(
        commands, "experiment", run, "run independent chains with every stage beside its control, or publish them",
        "phi-lab experiment ladder --seeds 6 --out runs/six",
    )
    parser.add_argument("which", choices=["ladder", "publish", "reward-hacking"],
                        help="ladder: all stages with controls at equal FLOPs; publish: show the chains of OUT in "
                        "docs/; reward-hacking: GRPO of the base against a sloppy and a strict verifier")
    parser.add_argument("--seeds", type=at_least(1), default=6, metavar="N", help="how many chains or pairs of runs")
    parser.add_argument("--first-seed", "--first", dest="first_seed", type=seed, default=0, metavar="SEED",
                        help="seed of the first one")
    parser.add_argument("--profile", default="lab", help="smoke or lab; a chain is a whole run and its controls")
    parser.add_argument("--out", type=Path, required=True, help="folder of the chains; an existing one is continued")


def run(options) -> None:
    """Run the chains and print both tables, or publish them; or run both arms of reward hacking for each seed."""
    presets.run_config("cpu", options.profile)
    check_out(options.out)
    from phi_lab.core import files
    from phi_lab.pipeline import experiment, reward_hacking
    from phi_lab.report import replications

    if options.which == "publish":
        replications.publish(options.out)
        return
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    if options.which == "reward-hacking":
        reward_hacking.run(options.out, seeds, reward_hacking.CONFIGS[options.profile])
        print(options.out / "rows.jsonl")
        return
    path = experiment.ladder(options.out, seeds, profile=options.profile)
    print(replications.summary(files.read_rows(path)))
    print(path)
