"""`phi-lab doctor`: what the files of a run say about why it does not learn."""

import json
from pathlib import Path

from phi_lab.cli.options import add_command, check_meaning

TEACH = """
What it reads in DIR, each where there is one:
  metrics.jsonl                  the log of a stage of this project; of a run, those of all its stages
  trainer_state.json             the log of any run of TRL, also that in its newest checkpoint-N
  rollouts/*.parquet             sampled answers with verdicts (a distilled set, or a run's data)
  completions/*.parquet          what TRL logs with log_completions=True
  *.jsonl                        other rollouts, or pairs with chosen and rejected; DIR may be such a file
  evals/STAGE.hard.jsonl         a run's measured answers
  tokenizer_config.json          chat template and stop token

Each finding says what was seen, what it means, the likeliest cause, and what to try. It is a reason to look, not a
proof: thresholds are conventions (`phi-lab doctor --rules`, docs/doctor.md). The exit code is 0 with findings, too."""


def add_parser(commands) -> None:
    """Add `doctor` and its options."""
    parser = add_command(
        commands, "doctor", run, "say what is wrong with a run, from its log, its rollouts and its pairs",
        "phi-lab doctor runs/first",
    )
    parser.description += f"\n{TEACH}"
    parser.add_argument("folder", type=Path, nargs="?", metavar="DIR",
                        help="a run, a stage, a distilled set, any run of TRL, or one file")
    parser.add_argument("--json", action="store_true", help="print JSON: a list of what was read, with its findings")
    parser.add_argument("--machine", action="store_true",
                        help="look at this computer instead: cores, memory, disk, versions, a browser, and how long "
                        "the course takes here, from a speed measured in ten seconds")
    parser.add_argument("--rules", action="store_true", help="list all rules with what sets them off, and stop")


def run(options) -> None:
    """Print what was found."""
    check_meaning(not options.machine, "no --machine", {"DIR": options.folder, "--rules": options.rules})
    check_meaning(not options.rules, "no --rules", {"DIR": options.folder, "--json": options.json})
    if options.machine:
        look_at_machine(options.json)
        return
    from phi_lab.core.errors import UserError
    from phi_lab.report import doctor
    from phi_lab.report.doctor import show

    if options.rules:
        print(show.rules_as_text(doctor.all_rules()))
        return
    if options.folder is None:
        raise UserError("doctor takes a folder, such as runs/first; or --machine, or --rules")
    checked = doctor.check_folder(options.folder)
    print(json.dumps(show.as_json(checked), indent=1, ensure_ascii=False) if options.json else show.as_text(checked))


def look_at_machine(as_json: bool) -> None:
    """Print the facts at once, and the estimate when the speed is measured."""
    from phi_lab.config import presets
    from phi_lab.pipeline import machine

    facts = machine.facts()
    if not as_json:
        print(machine.facts_text(facts), flush=True)
    speed = machine.speeds()
    seconds = machine.estimate(presets.LAB, speed)
    if as_json:
        print(json.dumps({**facts, "lacking": machine.lacking(facts), "tokens_per_second": speed, "seconds": seconds}))
    else:
        print(machine.estimate_text(presets.LAB, speed, seconds))
