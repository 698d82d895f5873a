"""Every exercise's check: the reference passes, a stub waits, plausible wrong answers fail with a counter-example."""

import ast
import random
import re
import signal
import sys
import threading
import time
from fractions import Fraction

import pytest
import torch
from IPython.core.autocall import ExitAutocall

from phi_lab.lab import checks, grading
from phi_lab.pipeline import notebooks
from phi_lab.stages import grpo
from phi_lab.verify import verify


def first_fit_in_order(lengths, row_length):
    """A new row whenever the next answer does not fit: never looks back."""
    rows, room = [], 0
    for index, length in enumerate(lengths):
        if length > row_length:
            continue
        if length > room:
            rows.append([])
            room = row_length
        rows[-1].append(index)
        room -= length
    return rows


def best_fit_of(lengths, row_length, fits):
    """Best fit decreasing with the learner's own idea of what fits into which room."""
    rows, rooms = [], []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not fits(lengths[index], row_length):
            continue
        places = [row for row, room in enumerate(rooms) if fits(lengths[index], room)]
        if not places:
            rows.append([])
            rooms.append(row_length)
        row = min(places, key=rooms.__getitem__) if places else -1
        rows[row].append(index)
        rooms[row] -= lengths[index]
    return rows


def drops_what_fills_a_row(lengths, row_length):
    """`>=` for `>` where the too long are left out, and nowhere else."""
    without = [length if length < row_length else row_length + 1 for length in lengths]
    return best_fit_of(without, row_length, int.__le__)


def never_fills_a_row(lengths, row_length):
    """`<` for `<=` where a row is chosen."""
    return best_fit_of(lengths, row_length, lambda length, room: length < room or length == row_length == room)


def first_fit_decreasing(lengths, row_length):
    rows, rooms = [], []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if lengths[index] > row_length:
            continue
        row = next((row for row, room in enumerate(rooms) if room >= lengths[index]), None)
        if row is None:
            rows.append([])
            rooms.append(row_length)
            row = len(rows) - 1
        rows[row].append(index)
        rooms[row] -= lengths[index]
    return rows


def boxes(text):
    return re.findall(r"\\boxed\{([^}]*)\}", text)


def same_number(one, two):
    try:
        return Fraction(one) == Fraction(two)
    except ValueError:
        return False


def reward_by(read, same):
    """A reward that reads an answer by `read` and compares it by `same`."""

    def reward(completions, answers):
        pairs = zip(map(read, completions), answers, strict=True)
        return [1.0 if answer is not None and same(answer, gold) else -1.0 for answer, gold in pairs]

    return reward


def after_the_thoughts(text):
    found = boxes(text.partition("</think>")[2])
    return found[-1] if found else None


def by_eval(answer, gold):
    return eval(answer) == eval(gold)  # noqa: S307 - the wrong answer that the check has to catch


def by_eval_without_builtins(answer, gold):
    try:
        return eval(answer, {"__builtins__": {}}) == eval(gold)  # noqa: S307 - as above
    except Exception:  # noqa: BLE001
        return False


def pairs_at_random(right, wrong, count, rng):
    count = min(count, len(right), len(wrong))
    return list(zip(rng.sample(list(right), count), rng.sample(list(wrong), count), strict=True))


def pairs_with_reuse(right, wrong, count, rng):
    every = [(good, bad) for good in right for bad in wrong]
    return sorted(every, key=lambda pair: abs(pair[0]["tokens"] - pair[1]["tokens"]))[:count]


def balanced_but_never_dropped(rewards, random):
    advantages = torch.zeros_like(rewards)
    for row, values in enumerate(rewards):
        hits, misses = (values > 0).nonzero()[:, 0], (values < 0).nonzero()[:, 0]
        k = min(len(hits), len(misses))
        advantages[row, hits[torch.randperm(len(hits), generator=random)[:k]]] = 1.0
        advantages[row, misses[torch.randperm(len(misses), generator=random)[:k]]] = -1.0
    return advantages


def the_first_k(rewards, random):
    advantages = torch.zeros_like(rewards)
    for row, values in enumerate(rewards):
        hits, misses = (values > 0).nonzero()[:, 0], (values < 0).nonzero()[:, 0]
        k = min(len(hits), len(misses)) if 2 * len(hits) <= len(values) else 0
        advantages[row, hits[:k]], advantages[row, misses[:k]] = 1.0, -1.0
    return advantages


def drawn_without_the_generator(rewards, random):
    return grpo.rebalance(rewards, None)


def drawn_with_a_generator_of_its_own(rewards, random):
    return grpo.rebalance(rewards, torch.Generator().manual_seed(0))


def written_in_place(rewards, random):
    rewards[:] = grpo.rebalance(rewards, random)
    return rewards


def half_of_eight(rewards, random):
    """4 instead of half the group."""
    advantages = grpo.rebalance(rewards, random)
    too_easy = (rewards > 0).sum(1) * 2 > rewards.shape[1]
    for row in (too_easy & ((rewards > 0).sum(1) <= 4)).nonzero()[:, 0]:
        advantages[row] = balanced_but_never_dropped(rewards[row : row + 1], random)[0]
    return advantages


def without_norms(config):
    hidden, width = config.hidden_size, config.hidden_size // config.num_attention_heads
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    layer = hidden * heads * width + 3 * hidden * config.intermediate_size
    return config.vocab_size * hidden + config.num_hidden_layers * layer


def without_groups(config):
    """As if every head had keys and values of its own."""
    hidden = config.hidden_size
    layer = 4 * hidden * hidden + 3 * hidden * config.intermediate_size + 2 * hidden
    return config.vocab_size * hidden + config.num_hidden_layers * layer + hidden


WRONG = {
    "share_right": (
        lambda verdicts: 100 * verdicts.count("right") / len(verdicts),
        lambda verdicts: verdicts.count("right") / max(1, verdicts.count("right") + verdicts.count("wrong")),
        lambda verdicts: sum("right" in verdict for verdict in verdicts) / len(verdicts),
    ),
    "reward": (
        lambda completions, answers: [
            float(verify(*pair).verdict == "right") for pair in zip(completions, answers, strict=True)
        ],
        lambda completions, answers: [
            1.0 if gold in text else -1.0 for text, gold in zip(completions, answers, strict=True)
        ],
        lambda completions, answers: [
            1.0 if text.endswith(f"\\boxed{{{gold}}}") else -1.0
            for text, gold in zip(completions, answers, strict=True)
        ],
        reward_by(after_the_thoughts, by_eval),
        reward_by(after_the_thoughts, by_eval_without_builtins),
        reward_by(lambda text: next(iter(boxes(text)), None), same_number),
        reward_by(lambda text: (boxes(text) or [None])[-1], same_number),
    ),
    "pack": (
        first_fit_in_order,
        drops_what_fills_a_row,
        never_fills_a_row,
        lambda lengths, row_length: list(range(len(lengths))),
        lambda lengths, row_length: [[length] for length in lengths],
        lambda lengths, row_length: [[index] for index in range(len(lengths))],
        lambda lengths, row_length: [list(range(len(lengths)))],
    ),
    "one_per_row": (
        lambda lengths, row_length: [[index] for index in range(len(lengths))],
        checks.pack_best_fit,
        lambda lengths, row_length: [[index] for index, length in enumerate(lengths) if length < row_length],
        lambda lengths, row_length: [[index] if length <= row_length else [] for index, length in enumerate(lengths)],
        lambda lengths, row_length: [index for index, length in enumerate(lengths) if length <= row_length],
        lambda lengths, row_length: [[length] for length in lengths if length <= row_length],
    ),
    "pair": (
        pairs_at_random,
        pairs_with_reuse,
        lambda right, wrong, count, rng: list(zip(wrong, right, strict=False))[:count],
        lambda right, wrong, count, rng: list(zip(right, wrong, strict=False))[:count],
    ),
    "advantage": (
        grpo.group_normalised,
        balanced_but_never_dropped,
        the_first_k,
        lambda rewards, random: rewards,
        drawn_without_the_generator,
        drawn_with_a_generator_of_its_own,
        written_in_place,
        half_of_eight,
    ),
    "temperature": (
        lambda step, steps: 1.0 - 0.4 * step / steps,
        lambda step, steps: 1.0 if step < steps / 2 else 0.6,
        lambda step, steps: max(1.0, 0.6 + 0.4 * step / steps),
        lambda step, steps: 1.0 - 0.4 * min(1.0, step / ((steps - 1) / 2)),
        lambda step, steps: 1.0 - 0.4 * min(1.0, step / (steps // 2)),
    ),
    "flips": (
        lambda before, after: (after.count("right") - before.count("right"), 0),
        lambda before, after: (sum(a != b for a, b in zip(before, after, strict=True)), 0),
    ),
    "parameters": (without_norms, without_groups),
    "mixed_share": (
        lambda rewards: float((rewards > 0).float().mean()),
        lambda rewards: float((rewards > 0).any(1).float().mean()),
    ),
}


def of_name(name):
    return next(check for check in checks.ALL if check.name == name)


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.name)
def test_the_reference_passes(check):
    verdict, why = check.grade(lambda *arguments: check.reference(*arguments))
    assert verdict == grading.RIGHT, why


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.name)
def test_the_reference_itself_is_nobody_s_attempt(check, capsys):
    verdict, why = check.grade(check.reference)
    assert verdict == grading.NOT_ATTEMPTED and "this is the reference" in why
    assert check.use(check.reference) is check.reference


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.name)
def test_a_stub_waits_and_the_reference_is_used(check, capsys):
    assert check.grade(lambda *_: NotImplemented)[0] == grading.NOT_ATTEMPTED
    assert check.use(lambda *_: NotImplemented) is check.reference


@pytest.mark.parametrize(("name", "place"), [(name, i) for name, wrong in WRONG.items() for i in range(len(wrong))])
def test_a_plausible_wrong_answer_fails_with_a_counter_example(name, place):
    verdict, why = of_name(name).grade(WRONG[name][place])
    assert verdict == grading.WRONG
    assert len(why) > 20 and "raised" not in why, why


def test_every_check_has_two_wrong_answers():
    assert {check.name for check in checks.ALL} == set(WRONG)
    assert all(len(wrong) >= 2 for wrong in WRONG.values())


@pytest.mark.parametrize(
    ("name", "attempt", "lesson"),
    [
        ("share_right", WRONG["share_right"][2], "['right', 'not right']"),
        ("pack", first_fit_in_order, "pack([5, 7, 5, 3], 10) gave [[0], [1], [2, 3]]: 3 rows, and 2 are enough: [["),
        ("pack", drops_what_fills_a_row, "it fills a row exactly"),
        ("pack", never_fills_a_row, "pack([6, 4], 10) gave [[0], [1]]: 2 rows, and 1 is enough"),
        ("pack", lambda lengths, row_length: [[n] for n in lengths], "a row lists indices, 0 to 1, not lengths"),
        ("one_per_row", WRONG["one_per_row"][0], "row [1] holds 12 tokens, and there is room for 10: what is longer"),
        ("one_per_row", WRONG["one_per_row"][2], "it fills a row exactly"),
        ("one_per_row", WRONG["one_per_row"][3], "row 1 is empty: what is longer than a row is left out"),
        ("one_per_row", WRONG["one_per_row"][4], "each row has to be a list"),
        ("reward", WRONG["reward"][3], "was run as Python code"),
        ("reward", WRONG["reward"][4], "Python code is no number"),
        ("reward", WRONG["reward"][5], "a box inside the thoughts does not count"),
        ("reward", WRONG["reward"][6], "the thoughts never end"),
        ("advantage", drawn_without_the_generator, "a generator of the same seed gave"),
        ("advantage", drawn_with_a_generator_of_its_own, "the same wrong answers are kept every time"),
        ("advantage", written_in_place, "it wrote into the rewards it was given"),
        ("advantage", half_of_eight, "rewards [1, 1, 1, 1, -1, -1] gave"),
        ("temperature", WRONG["temperature"][3], "temperature(7, 30) gave 0.8068"),
        ("temperature", WRONG["temperature"][4], "half of 31 steps is 15.5"),
    ],
)
def test_the_counter_example_teaches(name, attempt, lesson):
    verdict, why = of_name(name).grade(attempt)
    assert verdict == grading.WRONG and lesson in why, why
    assert len(why) < 400, why


@pytest.mark.parametrize("attempt", [first_fit_decreasing, lambda *given: best_fit_of(*given, int.__le__)])
def test_other_good_packers_are_right_too(attempt):
    assert checks.PACK.grade(attempt) == (grading.RIGHT, "from here on the notebook uses your pack")


def test_a_reward_written_without_the_verifier_is_right_too():
    assert checks.REWARD.grade(reward_by(after_the_thoughts, same_number))[0] == grading.RIGHT


def test_a_right_answer_is_what_the_notebook_then_uses():
    def mine(verdicts):
        return verdicts.count("right") / len(verdicts)

    assert checks.SHARE_RIGHT.use(mine) is mine


def test_an_optimal_pairing_that_differs_from_the_reference_is_right_too():
    def lazy(right, wrong, count, rng):
        return checks.PAIR.reference(list(reversed(right)), list(reversed(wrong)), count, random.Random(7))

    assert checks.PAIR.grade(lazy)[0] == grading.RIGHT


def test_an_attempt_that_raises_is_shown_not_raised():
    verdict, why = checks.PACK.grade(lambda lengths, row_length: 1 / 0)
    assert verdict == grading.WRONG and "ZeroDivisionError" in why
    assert checks.PACK.grade(lambda lengths, row_length: 3)[0] == grading.WRONG
    assert checks.ADVANTAGE.grade(lambda rewards, random: [1])[0] == grading.WRONG


def test_an_endless_attempt_is_stopped(monkeypatch):
    monkeypatch.setattr(grading, "TIME_LIMIT", 0.3)

    def endless(lengths, row_length):
        while True:
            pass

    verdict, why = checks.PACK.grade(endless)
    assert verdict == grading.WRONG and "not ended" in why


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no signal that ends a sleep")
def test_a_sleeping_attempt_is_stopped_too(monkeypatch):
    monkeypatch.setattr(grading, "TIME_LIMIT", 0.3)
    before, began = signal.getsignal(signal.SIGALRM), time.monotonic()
    verdict, why = checks.PACK.grade(lambda lengths, row_length: time.sleep(10))
    assert verdict == grading.WRONG and "not ended" in why
    assert time.monotonic() - began < 5
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_where_no_signal_can_be_had_an_endless_attempt_is_stopped(monkeypatch):
    monkeypatch.setattr(grading, "TIME_LIMIT", 0.3)
    monkeypatch.delattr(signal, "setitimer", raising=False)
    test_an_endless_attempt_is_stopped(monkeypatch)


def test_a_check_outside_the_main_thread_gives_its_verdict():
    found = []
    thread = threading.Thread(target=lambda: found.append(checks.PACK.grade(first_fit_in_order)[0]))
    thread.start()
    thread.join()
    assert found == [grading.WRONG]


def test_the_learner_s_own_ctrl_c_is_not_a_verdict():
    def interrupted(lengths, row_length):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checks.PACK.grade(interrupted)


def test_an_attempt_that_leaves_the_program_is_wrong():
    verdict, why = checks.PACK.grade(lambda lengths, row_length: sys.exit())
    assert verdict == grading.WRONG and "exit()" in why


def test_exit_in_a_notebook_does_not_end_the_kernel(monkeypatch):
    class Shell:
        ended = False

        def ask_exit(self):
            self.ended = True

    shell = Shell()
    monkeypatch.setattr(grading, "get_ipython", lambda: shell)
    leave = ExitAutocall(shell)  # what `exit` is in a notebook
    verdict, why = checks.PACK.grade(lambda lengths, row_length: leave())
    assert verdict == grading.WRONG and "exit()" in why and not shell.ended
    leave()
    assert shell.ended, "after the check it does again"


def test_a_forgotten_return_is_told():
    verdict, why = checks.PACK.grade(lambda lengths, row_length: None)
    assert verdict == grading.WRONG and "`return`" in why


# ------------------------------------------------------------------ the cells of the notebooks


def exercises():
    """(cells from the stub on as syntax trees, the check's assignment), one an exercise."""
    for source in sorted(notebooks.SOURCES.glob("*.py")):
        trees = [ast.parse(text) for text in notebooks.code(notebooks.build(source))]
        for place, tree in enumerate(trees):
            for line in tree.body:
                if isinstance(line, ast.Assign) and re.match(r"checks\.\w+\.use\(", ast.unparse(line.value)):
                    yield pytest.param(trees[place - 1 :], line, id=f"{source.stem}-{line.value.args[0].id}")


def names_read(tree):
    return [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]


@pytest.mark.parametrize(("cells", "line"), list(exercises()))
def test_no_cell_gives_the_attempt_s_name_to_the_reference(cells, line):
    attempt, (target,) = line.value.args[0].id, line.targets
    assert cells[0].body[-1].name == attempt
    for cell in cells:
        assert attempt not in [node.id for node in ast.walk(cell) if isinstance(node, ast.Name)
                               and isinstance(node.ctx, ast.Store)]
    used = sum((names_read(cell) for cell in cells[1:]), [])
    assert used.count(attempt) == 1, "after the check the notebook uses what the check returned"
    assert target.id in used


@pytest.mark.parametrize(("cells", "line"), list(exercises()))
def test_a_check_cell_run_twice_gives_the_same_verdict(cells, line, monkeypatch):
    said = []
    monkeypatch.setattr(grading, "display", lambda html: said.append(html.data))
    page, attempt = {"checks": checks}, line.value.args[0].id

    def run(*statements):
        for statement in statements:
            exec(ast.unparse(statement), page)  # noqa: S102 - the notebook's own cells

    run(cells[0].body[-1], line, line)
    assert len(said) == 2 and all(f": {grading.NOT_ATTEMPTED}" in html for html in said), said
    name = getattr(checks, line.value.func.value.attr).name
    page[attempt] = WRONG[name][0]
    run(line, line)
    assert len(said) == 4 and all(f": {grading.WRONG}" in html for html in said[2:]), said
    page[attempt] = page[line.targets[0].id]  # as a learner may still do
    run(line)
    assert "this is the reference" in said[4] and grading.NOT_ATTEMPTED in said[4]


def test_the_message_is_escaped(monkeypatch):
    said = []
    monkeypatch.setattr(grading, "display", lambda html: said.append(html.data))
    checks.SHARE_RIGHT.use(lambda verdicts: "<script>1</script>")
    assert "<script>" not in said[0] and grading.WRONG in said[0]
