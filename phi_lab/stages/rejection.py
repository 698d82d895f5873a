"""Rejection fine-tuning: SFT on sampled answers that turned out right, GRPO's rival at the same compute.

In each of several rounds the student, as it is by then, answers new questions, and is fine-tuned for one epoch on its
own right answers to those that it gets at most half right (arXiv 2308.01825; in rounds: arXiv 2312.06585). As GRPO does
when it chooses prompts, it asks once, and more often only where the first answer is wrong. With a `teacher` the answers
are the teacher's instead, one to each question. Everything that is sampled, kept or not, is paid for out of one budget:
the compute of the stage that this rivals. A token of the wider teacher costs as much as one of the student's.

    phi-lab experiment ladder --seeds 6-17 --arms grpo-rft,grpo-sft --out runs/ladder
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from phi_lab import sampling
from phi_lab.config.schema import LanguageModelingConfig
from phi_lab.core.files import read_json, read_rows, remove_folder, replace_folder, write_json, write_rows
from phi_lab.core.progress import Bar
from phi_lab.core.run_folder import StageFolder
from phi_lab.core.seeds import derive_seed
from phi_lab.model import chat, checkpoints
from phi_lab.problems.problem import Problem
from phi_lab.stages import lm_trainer
from phi_lab.stages.packing import one_per_row
from phi_lab.stages.training import TrainingResult
from phi_lab.verify import verify_many

SAMPLES = 8  # of the student to a question whose first answer is wrong, that one included
MOST_RIGHT = 0.5  # share of them: questions of which the student gets more right teach it little
KEPT = 4  # right answers to one question, at most
TEMPERATURE = 0.8
ASKED_AT_ONCE = 50  # questions; the budget is looked at after each such lot
SEEDS = 130_000  # added to the seed of questions: other stages ask others
Questions = Callable[[int, int], list[Problem]]  # (count, seed) -> that many questions, others for another seed
Ask = Callable[[Sequence[Problem], int, int], list[list[dict]]]  # (questions, samples, seed) -> rows of each question


def train(
    student: Path, questions: Questions, out: Path, config: LanguageModelingConfig, *, budget: float, rounds: int,
    max_tokens: int, seed: int, teacher: Path | None = None,
) -> TrainingResult:
    """Train the model in `student` in `rounds` rounds of answers and SFT; it is saved in `out/model`.

    questions: whose answers are asked for. budget: training tokens for all rounds, of which a sampled token takes a
    third (`TrainingResult.compute`); the last lot of questions and the last step of a round may exceed it. config: of
    the SFT in each round, but for its steps. max_tokens: limit of an answer. A stopped training goes on where it was.
    A round that finds no answer to train on trains nothing.
    """
    model, spent = student, 0.0
    metrics: list[dict] = []
    results: list[tuple[float, int, int]] = []
    for number in range(rounds):
        folder, share = StageFolder(out / f"round-{number + 1}"), (budget - spent) / (rounds - number)
        title = f"{'teacher' if teacher else 'own'} answers, round {number + 1} of {rounds}"
        path = folder.path / "answers.json"
        if not path.exists():
            write_json(path, _collect(teacher or model, questions, config, share, max_tokens, title,
                                      derive_seed(seed + SEEDS, 1000 * number), fresh if teacher else often_failed))
        answers = read_json(path, ("rows", "forward_tokens", "kept_tokens", "seconds"), f"delete {out}")
        trained = 0
        if rows := answers["rows"]:
            left = max(1.0, share - answers["forward_tokens"] / 3)
            plan = replace(config, steps=1_000_000, epochs=left / answers["kept_tokens"], documents=0, eval_steps=0)
            if not folder.finished:
                lm_trainer.fit_rollouts(model, rows, [], folder.path, plan, pack=one_per_row, packed=False,
                                        seed=seed + number, title=f"SFT on {title}")
            model, trained = folder.model, read_json(folder.done)["train_tokens"]
            before = metrics[-1]["step"] if metrics else 0
            metrics += [{**row, "step": before + row["step"], "round": number + 1, "answers": len(rows)}
                        for row in read_rows(folder.metrics)]
        seconds = answers["seconds"] + (read_json(folder.done)["seconds"] if rows else 0)
        results.append((seconds, trained, answers["forward_tokens"]))
        spent = sum(trained + forward / 3 for _, trained, forward in results)
    return _save(model, out, metrics, results)


def _collect(
    model: Path, questions: Questions, config: LanguageModelingConfig, share: float, max_tokens: int, title: str,
    seed: int, choose: Callable[[Ask, Sequence[Problem], int], list[dict]],
) -> dict:
    """Ask lots of new questions until sampling and one epoch on what `choose` keeps cost `share`: the rows kept, their
    tokens with those replayed beside them, and the tokens of all that was sampled.
    """
    network, tokenizer = checkpoints.load_to_sample(model, config.hardware.engine), checkpoints.load_tokenizer(model)
    rows: list[dict] = []
    forward, lot, began = 0, 0, time.perf_counter()

    def ask(problems: Sequence[Problem], samples: int, seed: int) -> list[list[dict]]:
        nonlocal forward
        params = sampling.SamplingParams(n=samples, temperature=TEMPERATURE, max_tokens=max_tokens, seed=seed)
        prompts = [problem.prompt for problem in problems]
        groups = sampling.sample(network, tokenizer, prompts, params, engine=config.hardware.engine, quiet=True)
        pairs = [(one.text, problem.answer) for problem, group in zip(problems, groups, strict=True) for one in group]
        verdicts = iter(verify_many(pairs))
        asked: list[list[dict]] = []
        for problem, group in zip(problems, groups, strict=True):
            question = len(chat.prompt_ids(tokenizer, problem.prompt))
            asked.append([
                {"id": problem.id, "level": problem.level, "prompt": problem.prompt, "completion": one.text,
                 "tokens": question + len(one.ids), "right": next(verdicts).verdict == "right"} for one in group
            ])
        forward += sum(row["tokens"] for group in asked for row in group)
        return asked

    def kept_tokens() -> float:
        return sum(int(row["tokens"]) for row in rows) / (1 - config.replay_share)

    def cost() -> float:
        return forward / 3 + kept_tokens()

    with Bar(round(share), title, "token") as bar:
        while cost() < share:
            rows += choose(ask, questions(ASKED_AT_ONCE, seed + 2 * lot), seed + 2 * lot)
            lot += 1
            bar.update(round(cost()) - bar.n)
    sampling.release_engine()
    return {"asked": lot * ASKED_AT_ONCE, "forward_tokens": forward, "kept_tokens": kept_tokens(),
            "seconds": round(time.perf_counter() - began, 1), "rows": rows}


def often_failed(ask: Ask, problems: Sequence[Problem], seed: int) -> list[dict]:
    """Up to `KEPT` right answers to each question whose first answer is wrong and at most `MOST_RIGHT` are right."""
    firsts = ask(problems, 1, seed)
    failed = [(problem, first) for problem, first in zip(problems, firsts, strict=True) if not first[0]["right"]]
    more = ask([problem for problem, _ in failed], SAMPLES - 1, seed + 1) if failed else []
    groups = [[row for row in [*first, *others] if row["right"]]
              for (_, first), others in zip(failed, more, strict=True)]
    return [row for right in groups if len(right) <= MOST_RIGHT * SAMPLES for row in right[:KEPT]]


def fresh(ask: Ask, problems: Sequence[Problem], seed: int) -> list[dict]:
    """One answer to each question, if it is right."""
    return [row for (row,) in ask(problems, 1, seed) if row["right"]]


def _save(model: Path, out: Path, metrics: list[dict], results: list[tuple[float, int, int]]) -> TrainingResult:
    folder, beside = StageFolder(out), out / "model.part"
    remove_folder(beside)
    shutil.copytree(model, beside)
    replace_folder(beside, folder.model)
    write_rows(folder.metrics, metrics)
    seconds, trained, forward = (sum(column) for column in zip(*results, strict=True))
    return TrainingResult(folder.model, metrics, seconds, trained, forward)
