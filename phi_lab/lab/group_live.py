"""A GRPO group, live: eight sampled answers to one question, one gradient step on them, and what it did to each.

    group = group_live.sample_group(model, tokenizer, problem)
    history = group_live.take_steps(model, group, steps=1)   # log-probabilities before and after, of a copy
    group_live.figure(group, history)
    group_live.widget(model, [group], group)                 # with a running kernel: choose a question, step again

The functions are those of `stages/minimal_grpo.py`. A further step is one on the *same* answers, so ratios differ from
1 there and the clip drops the gradient of tokens that have moved far enough.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import ipywidgets
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from phi_lab import sampling
from phi_lab.lab import tables
from phi_lab.lab.answers import with_verdicts
from phi_lab.model import chat
from phi_lab.problems.problem import Problem
from phi_lab.report import plot_style
from phi_lab.report.plot_style import VERDICTS
from phi_lab.stages import minimal_grpo
from phi_lab.stages.grpo import group_normalised
from phi_lab.stages.grpo_trainer import Advantage

MOST_STEPS = 6  # of the widget: more only repeat what one sees by then


@dataclass(frozen=True)
class Group:
    """One question's sampled answers. rows: one an answer, with prompt, answer, completion, tokens and verdict; batch:
    the same answers as tensors, with their advantages; temperature: at which they were sampled.
    """

    rows: list[dict]
    batch: minimal_grpo.Batch
    temperature: float

    @property
    def advantages(self) -> list[float]:
        """The advantage of each answer."""
        return self.batch.advantages[:, 0].tolist()


def sample_group(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problem: Problem, *, size: int = 8,
    temperature: float = 1.0, max_new_tokens: int = 256, seed: int = 0, advantage: Advantage = group_normalised,
) -> Group:
    """`size` sampled answers to a problem with their verdicts, and advantages from rewards of +1 (right) and -1."""
    params = sampling.SamplingParams(n=size, temperature=temperature, max_tokens=max_new_tokens, seed=seed)
    (samples,) = sampling.sample(model, tokenizer, [problem.prompt], params, quiet=True)
    rows = with_verdicts([{"prompt": problem.prompt, "answer": problem.answer}] * size, samples)
    rewards = torch.tensor([[1.0 if row["verdict"] == "right" else -1.0 for row in rows]])
    advantages = advantage(rewards, torch.Generator().manual_seed(seed))
    prompts = [chat.prompt_ids(tokenizer, problem.prompt)] * size
    return Group(rows, minimal_grpo.to_batch(prompts, samples, advantages.view(-1, 1)), temperature)


def take_steps(
    model: PreTrainedModel, group: Group, steps: int = 1, learning_rate: float = 1e-4
) -> list[list[float]]:
    """The log-probability (nats) of each answer before and after each gradient step on the group: `steps` + 1 lists,
    each of one number an answer. A copy of the model takes the steps; a group without a difference moves nothing.
    """
    policy, batch = copy.deepcopy(model), group.batch
    optimizer = torch.optim.AdamW(policy.parameters(), lr=learning_rate, weight_decay=0.0)
    history = [answer_logprobs(policy, group)]
    for _ in range(steps):
        optimizer.zero_grad()
        minimal_grpo.policy_loss(policy, batch, group.temperature).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        history.append(answer_logprobs(policy, group))
    return history


def answer_logprobs(model: PreTrainedModel, group: Group) -> list[float]:
    """log pi(answer | question) of each answer of a group, in nats, at the temperature of sampling."""
    with torch.no_grad():
        logprobs = minimal_grpo.token_logprobs(model, group.batch.ids, group.temperature)
    return (logprobs * group.batch.mask).sum(1).tolist()


@rc_context(plot_style.RC_PARAMS)
def figure(group: Group, history: Sequence[Sequence[float]]) -> plot_style.Figure:
    """What pushed each answer, and where it went: its advantage, and an arrow for the change of its log-probability
    from the first entry of `history` to the last, with a dot for each step between.
    """
    steps, advantages = len(history) - 1, group.advantages
    changes = [[after - before for before, after in zip(history[0], one, strict=True)] for one in history[1:]]
    drawn, ((pushes, moves),) = plot_style.panels(
        1, 2, (9.5, 1.5 + 0.42 * len(advantages)), sharey=True, gridspec_kw={"width_ratios": [1, 1.9]})
    for y, (row, advantage) in enumerate(zip(group.rows, advantages, strict=True)):
        colour = VERDICTS[row["verdict"]]
        pushes.barh(y, advantage, height=0.6, color=colour)
        _beside(pushes, advantage, y, f"{advantage:+.2f}" if advantage else "0")
        change = changes[-1][y]
        moves.plot([one[y] for one in changes[:-1]], [y] * (steps - 1), ".", color=colour, markersize=5)
        moves.annotate("", (change, y), (0, y), arrowprops={
            "arrowstyle": "-|>", "color": colour, "linewidth": 2.4, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 14})
        _beside(moves, change, y, f"{change:+.2f}")
    names = [f"{number} {'✓' if row['verdict'] == 'right' else '✗'} {row['verdict']}, {before:.1f} nats"
             for number, (row, before) in enumerate(zip(group.rows, history[0], strict=True), 1)]
    pushes.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6), xticks=[0],
               xlim=[side * 1.9 * max(1.0, *map(abs, advantages)) for side in (-1, 1)])
    pushes.set_title("Advantage")
    moves.set_xscale("symlog", linthresh=0.1, linscale=0.7)
    moves.set_xlabel("nats; beyond ±0.1 the scale is logarithmic")
    moves.set_xticks(ticks := [-100, -10, -1, -0.1, 0, 0.1, 1, 10, 100], [f"{tick:g}" for tick in ticks])
    moves.set_xticks([], minor=True)
    moves.set_xlim([side * 8 * max(0.1, *map(abs, changes[-1])) for side in (-1, 1)])
    moves.set_title(f"Change of log π(answer) after {_steps(steps)}")
    for axes in (pushes, moves):
        axes.axvline(0, color=plot_style.SOFT, linewidth=1)
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
    drawn.alt = _alt(group, history)
    return drawn


def _beside(axes: Axes, x: float, y: int, label: str) -> None:
    """A label at the outer end of a bar or an arrow from 0 to x."""
    axes.annotate(label, (x, y), xytext=(6 if x >= 0 else -6, 0), textcoords="offset points", va="center",
                  ha="left" if x >= 0 else "right", fontsize=9)


def _steps(count: int) -> str:
    return f"{count} step{'s' * (count != 1)}"


def _alt(group: Group, history: Sequence[Sequence[float]]) -> str:
    each = "; ".join(
        f"{number} {row['verdict']}, advantage {advantage:+.2f}, from {before:.1f} by {after - before:+.2f}"
        for number, (row, advantage, before, after) in enumerate(
            zip(group.rows, group.advantages, history[0], history[-1], strict=True), 1))
    steps = _steps(len(history) - 1)
    return f"Log-probabilities in nats of {len(group.rows)} answers before, and their change after {steps}: {each}."


def summary(group: Group, history: Sequence[Sequence[float]]) -> str:
    """In a sentence: how many answers are right, and by how much right and other answers moved in the mean, nats."""
    hits = [row["verdict"] == "right" for row in group.rows]
    if not any(group.advantages):
        return f"{sum(hits)} of {len(hits)} right, and none has an advantage: no gradient, and nothing moves."
    changes = [after - before for before, after in zip(history[0], history[-1], strict=True)]
    means = {kind: mean(change for change, hit in zip(changes, hits, strict=True) if hit is kind)
             for kind in (True, False)}
    return (f"{sum(hits)} of {len(hits)} right. After {_steps(len(history) - 1)} the right "
            f"answers have moved by {means[True]:+.2f} nats in the mean, the others by {means[False]:+.2f}.")


def thoughts_table(group: Group, history: Sequence[Sequence[float]]) -> str:
    """The answers with verdict, advantage, and the ratio of the probability after the last step to that before."""
    lines = []
    for number, (row, advantage, before, after) in enumerate(
            zip(group.rows, group.advantages, history[0], history[-1], strict=True), 1):
        ratio = float(torch.tensor(after - before).exp())
        lines.append((str(number), tables.answer(row["completion"], row["verdict"]), f"{row['tokens']}",
                      f"{advantage:+.2f}", f"× {ratio:.2g}"))
    question = group.rows[0]
    caption = f"{question['prompt']} The answer is {question['answer']}. {summary(group, history)}"
    head = ("", "answer", "tokens", "advantage", "probability, after / before")
    return tables.table(caption, head, lines, raw=True)


def shown(group: Group, history: Sequence[Sequence[float]]) -> str:
    """The figure and the answers below it, as HTML."""
    return figure(group, history)._repr_html_() + thoughts_table(group, history)


def widget(model: PreTrainedModel, groups: Sequence[Group], group: Group) -> ipywidgets.Widget:
    """Choose one of `groups` by its question, and take steps on it one by one; at first it is `group`, after one step.

    The model is copied: what a page trains later does not move the groups that it sampled now.
    """
    frozen = copy.deepcopy(model)
    question = ipywidgets.Dropdown(
        options=[(one.rows[0]["prompt"], number) for number, one in enumerate(groups)],
        value=next(number for number, one in enumerate(groups) if one is group), description="question",
        layout=ipywidgets.Layout(width="46em"))
    again = ipywidgets.Button(description="another step", button_style="primary")
    restart = ipywidgets.Button(description="back to one step")
    steps, view = [1], ipywidgets.HTML()

    def go_to(count: int) -> None:
        steps[0], chosen = count, groups[question.value]
        view.value = shown(chosen, take_steps(frozen, chosen, count))
        again.disabled = count >= MOST_STEPS

    again.on_click(lambda _: go_to(steps[0] + 1))
    restart.on_click(lambda _: go_to(1))
    question.observe(lambda _: go_to(1), "value")
    go_to(1)
    return ipywidgets.VBox([question, ipywidgets.HBox([again, restart]), view])
