"""Is it the stage, or only more compute? Controls at equal FLOPs, and independent chains.

Anyone can draw a rising curve by stopping the first stage early. So beside each rung stands its *control*: the model
that the stage started from, trained on as the stage before would have trained it, with the same seed, for the FLOPs
that the stage took (sampling and scoring included, see `Result.compute`). A rung counts when it beats that. One chain
is one observation: its own distillation sample, its own training, its own controls; rungs are compared over chains by
a paired t-test, corrected for their number by Holm's method.

    phi-lab experiment ladder --seeds 6 --out runs/ladder
    phi-lab experiment publish --out runs/ladder    # into README, docs/results.md and their picture
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from matplotlib import rc_context

from phi_lab import figures, models, run, scale, stats
from phi_lab.errors import UserError
from phi_lab.files import append_rows, read_json, read_rows, write_rows
from phi_lab.look import BENCHMARKS
from phi_lab.models import DATA
from phi_lab.scale import STAGES, Numbers
from phi_lab.stages import base, mid_training, rollout_dpo, sft
from phi_lab.stages.training import Result

RUNGS = STAGES[1:]
CHAINS = DATA / "chains.jsonl"  # the chains that README and docs/results.md show
PAGES = ("README.md", "docs/results.md")
MARKS = ("<!-- chains: phi-lab experiment publish -->\n", "\n<!-- end of chains -->")


def ladder(
    out: Path, seeds: range, *, scale_name: str = "cpu", profile: str = "lab", say: Callable[[str], None] = print
) -> Path:
    """Run a chain with its controls for every seed, each in `out/seed-N`; returns the file of rows, one a chain.

    A stopped queue goes on where it was: finished steps and finished chains are found again. Raises UserError as
    `run.chain` does.
    """
    path, numbers = out / "chains.jsonl", scale.numbers(scale_name, profile)
    done = {row["seed"] for row in read_rows(path)} if path.exists() else set()
    for place, seed in enumerate(seeds):
        if seed in done:
            continue
        say(f"chain {place + 1} of {len(seeds)}, seed {seed}")
        folder = out / f"seed-{seed}"
        run.chain(folder, scale_name=scale_name, profile=profile, seed=seed, say=say)
        for stage in RUNGS:
            control(stage, folder, numbers, seed, say)
        limo(folder, numbers, seed, say)
        append_rows(path, [chain_row(folder)])
        write_summary(path)
    return path


def write_summary(path: Path) -> None:
    """Beside the file of chains: summary.md, and from two chains on chains.svg."""
    chains = read_rows(path)
    path.with_name("summary.md").write_text(summary(chains) + "\n", encoding="utf-8")
    if len(chains) > 1:
        figures.chains(chains).savefig(path.with_name("chains.svg"), metadata={"Date": None})


def publish(out: Path, root: Path = DATA.parent) -> None:
    """Make the chains of a queue the published ones: data/chains.jsonl, and from it alone the tables in README and
    docs/results.md, between `MARKS`, and docs/ladder.svg.

    Raises UserError with fewer than two chains, or when a page lacks its marks.
    """
    rows = sorted(read_rows(out / "chains.jsonl"), key=lambda row: row["seed"])
    if len(rows) < 2:
        raise UserError(f"{out / 'chains.jsonl'}: {len(rows)} finished chain, two are needed to publish")
    pages = {}
    for name in PAGES:
        text = (root / name).read_text(encoding="utf-8")
        before, start, rest = text.partition(MARKS[0])
        _, end, after = rest.partition(MARKS[1])
        if not (start and end):
            raise UserError(f"{root / name}: the lines {MARKS[0].strip()} and {MARKS[1].strip()} are missing")
        pages[root / name] = before + start + summary(rows) + end + after
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
    write_rows(root / CHAINS.relative_to(DATA.parent), rows)
    with rc_context({"svg.hashsalt": "phi-lab"}):  # the same bytes every time
        figures.chains(rows).savefig(
            root / "docs" / "ladder.svg", metadata={"Date": None, "Description": fingerprint(rows)}
        )


def fingerprint(rows: list[dict]) -> str:
    """Says in a picture which chains it shows."""
    return hashlib.sha256(summary(rows).encode()).hexdigest()


def control(stage: str, out: Path, numbers: Numbers, seed: int, say: Callable[[str], None] = print) -> None:
    """Train and measure the control of `stage` in a run that has it: the stage before, continued at equal FLOPs.

    Mid-training goes on with the rate that SFT has, falling to zero, so that SFT's rung is not merely its falling
    rate. Raises UserError when the run lacks the stage or, for DPO and GRPO, the one before it.
    """
    before = STAGES[STAGES.index(stage) - 1]
    rung, previous = run.finished(out / stage), run.finished(out / before)
    for name, found in ((stage, rung), (before, previous or before in ("base", "mid"))):
        if not found:
            raise UserError(f"{out / name}: no finished stage, and the control of {stage} is measured by it")
    student = run.student_for(stage, out, numbers)

    def train(folder: Path) -> Result:
        say(f"{stage}: control, {before} continued for {rung.compute:,.0f} tokens")
        data = run.training_data(out, numbers, seed, say)
        right, wrong, held = (data / f"{name}.jsonl" for name in ("right", "wrong", "validation"))
        if before == "base":
            plan = replace(scale.TEACHER, steps=_steps(rung, scale.TEACHER.batch * scale.TEACHER.row_length))
            return base.train_more(student, folder, plan, seed)
        if before == "mid":
            steps = _steps(rung, numbers.mid.batch * numbers.mid.row_length)
            plan = replace(numbers.mid, steps=steps, schedule=numbers.sft.schedule, warmup=numbers.sft.warmup,
                           learning_rate=numbers.sft.learning_rate, evaluate_every=0, patience=0)  # fmt: skip
            return mid_training.train(student, right, held, folder, plan, seed=seed)
        if before == "sft":
            plan = replace(numbers.sft, steps=_steps(rung, previous.train_tokens / previous.metrics[-1]["step"]))
            return sft.train(student, right, held, folder, plan, seed=seed)
        plan = replace(numbers.dpo, epochs=_steps(rung, previous.train_tokens))
        return rollout_dpo.train(student, right, wrong, folder, plan, seed=seed)

    run.run_arm(stage, "control", student, out, numbers, seed, train, say)


def _steps(rung: Result, tokens_a_step: float) -> int:
    return max(1, round(rung.compute / tokens_a_step))


def limo(out: Path, numbers: Numbers, seed: int, say: Callable[[str], None] = print) -> None:
    """SFT of the base on its small, good set, without mid-training: "less is more" on a model that is too small.

    The paper (section 2) found that this lowers Phi-4-Mini's accuracy, which is why its recipe starts with
    mid-training.
    """
    student = run.student_for("mid", out, numbers)

    def train(folder: Path) -> Result:
        say("sft: of the base")
        data = run.training_data(out, numbers, seed, say)
        return sft.train(student, data / "right.jsonl", data / "validation.jsonl", folder, numbers.sft, seed=seed)

    run.run_arm("sft", "limo", student, out, numbers, seed, train, say)


def chain_row(folder: Path) -> dict:
    """One finished chain as one row: seed, git_commit, seconds, fingerprints of its models, accuracy[name][benchmark].

    Names are those of the stages, with "-own", "-control", "-limo" for other arms.
    """
    config, accuracy, seconds = read_json(folder / "config.json"), {}, 0.0
    for row in read_json(folder / "ladder.json"):
        if figures.protocol(row) == "sampled":
            name = run.arm_name(row["stage"], row["arm"])
            accuracy.setdefault(name, {})[row["benchmark"]] = round(row["accuracy"], 5)
            seconds += row["seconds"] if row["benchmark"] == "hard" else 0
    made = {
        name: models.fingerprint(folder / name / "model") for name in accuracy if (folder / name / "model").is_dir()
    }
    return {
        "seed": config["seed"], "git_commit": config["git_commit"], "seconds": round(seconds), "models": made,
        "accuracy": accuracy,
    }  # fmt: skip


def rungs(chains: list[dict], benchmark: str = "hard") -> list[dict]:
    """What each stage brought, over chains: {"stage", "over": PairedT, "p_holm", "control": PairedT, "control_p_holm"}.

    `over` compares with the stage before, `control` with the stage's control; accuracies are shares.
    Raises UserError with fewer than two chains.
    """
    if len(chains) < 2:
        raise UserError(f"{len(chains)} finished chain: two are needed to compare rungs, six for a claim")

    def values(name: str) -> list[float]:
        return [chain["accuracy"][name][benchmark] for chain in chains]

    found = []
    for before, stage in zip(STAGES, RUNGS, strict=False):
        mine = values(stage)
        found.append({"stage": stage, "over": stats.paired_t(mine, values(before)),
                      "control": stats.paired_t(mine, values(f"{stage}-control"))})  # fmt: skip
    for name, column in (("over", "p_holm"), ("control", "control_p_holm")):
        for row, p in zip(found, stats.holm([row[name].p for row in found]), strict=True):
            row[column] = p
    return found


def summary(chains: list[dict]) -> str:
    """The ladder over chains as a Markdown table: means, then each rung over the stage before and over its control."""
    names = [name for name in chains[0]["accuracy"] if all(name in chain["accuracy"] for chain in chains)]
    lines = ["| | " + " | ".join(BENCHMARKS) + " | hard, chain by chain |", "|---" * 5 + "|"]
    for name in names:
        means = [100 * sum(c["accuracy"][name][b] for c in chains) / len(chains) for b in BENCHMARKS]
        each = ", ".join(f"{100 * chain['accuracy'][name]['hard']:.1f}" for chain in chains)
        lines.append(f"| {name} | " + " | ".join(f"{mean:.1f} %" for mean in means) + f" | {each} |")
    if len(chains) > 1:
        lines += [
            "",
            "| `hard`, points | over the stage before | p, Holm | over its control | p, Holm |",
            "|---" * 5 + "|",
        ]
        for row in rungs(chains):
            over, beside = (
                f"{100 * t.mean:+.1f} [{100 * t.low:+.1f}, {100 * t.high:+.1f}]" for t in (row["over"], row["control"])
            )
            lines.append(f"| {row['stage']} | {over} | {row['p_holm']:.2g} | {beside} | {row['control_p_holm']:.2g} |")
    return "\n".join(lines)
