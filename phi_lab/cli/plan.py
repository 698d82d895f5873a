"""`phi-lab plan`: what a GPU scale would take, before anything is rented."""

import json

from phi_lab.cli.options import add_command, at_least, between
from phi_lab.config import presets


def add_parser(commands) -> None:
    """Add `plan` and its options."""
    parser = add_command(
        commands, "plan", run, "estimate a GPU scale's memory, tokens a second, hours and money, and what will not fit",
        "phi-lab plan --scale full --gpus 8 --gpu h100",
    )
    parser.add_argument("--scale", default="full", help="lora, qlora or full")
    parser.add_argument("--gpu", default="h100", help="h100, h200, b200, a100, l40s, a6000, rtx4090, rtx4080, "
                        "rtx3090, a10g, l4 or t4")
    parser.add_argument("--gpus", type=at_least(1), default=1, metavar="N", help="how many")
    parser.add_argument("--price", type=between(0.0, 1e6, float), default=None,
                        help="US dollars a GPU and hour; by default a guess")
    parser.add_argument(
        "--json", action="store_true",
        help="one object a stage instead of a table: stage, tokens, sampled_tokens, tokens_per_second, hours, price, "
        "row (tokens), batch, rows_a_pass, passes, memory (GB on a GPU, by part), total_gb, fits, reason",
    )


def run(options) -> None:
    """Print the plan."""
    config = presets.run_config(options.scale)  # checked before torch is imported
    from phi_lab.pipeline import plan

    rows = plan.plan(config, options.gpu, options.gpus, options.price)
    print(json.dumps(rows) if options.json else plan.table(config, rows, options.gpu, options.gpus))
