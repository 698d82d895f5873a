"""Looking inside: thoughts laid out in columns, attention, the tokens of a pair, what a temperature gives."""

import math
import random

import pytest
import torch

from phi_lab.core import paths
from phi_lab.lab import looks, pictures, tables, thoughts, widgets
from phi_lab.model import chat, checkpoints
from phi_lab.problems import arithmetic, worked_solutions
from phi_lab.stages import minimal_dpo

THOUGHT = r"<think>47+38,-12.47+38:7+8=15,4+3+1=8;85,-12.85-12:5-2=3,8-1=7;73.</think>\boxed{73}"
EVIL = "<img src=x onerror=alert(1)>"
PAIR = {"prompt": "Compute 7+8.", "chosen": "<think>7+8=15.</think>\\boxed{15}",
        "rejected": "<think>7+8=16.</think>\\boxed{16}"}


def test_a_thought_is_taken_apart():
    plan, first, second = thoughts.read(THOUGHT)
    assert (plan.operation, plan.rest) == ("", ("47+38", "-12"))
    assert first == thoughts.Line(17, "47+38", ("7+8=15", "4+3+1=8"), "85", ("-12",))
    assert (second.start, second.columns, second.rest) == (THOUGHT.index("85-12:"), ("5-2=3", "8-1=7"), ())


@pytest.mark.parametrize("level", range(1, 6))
@pytest.mark.parametrize("style", [*worked_solutions.STYLES, "plain"])
def test_every_worked_solution_can_be_laid_out(level, style):
    rng = random.Random(level)
    for _ in range(20):
        problem = arithmetic.sample(rng, level)
        work, answer = worked_solutions.write_solution(problem, style, rng)
        completion = chat.completion_text(work, answer)
        lines = thoughts.read(completion, problem)
        assert lines and not any(line.wrong for line in lines)
        assert all(line.slip is None for line in lines), work
        assert all(completion[line.start - 1] in ">." for line in lines), "each begins where a step begins"
        assert f"<b>{answer}</b>" in tables.laid_out(completion)


def test_a_slip_is_marked_and_one_that_was_noticed_is_struck_out():
    wrong = THOUGHT.replace("4+3+1=8", "4+3+1=9")
    assert [line.slip for line in thoughts.read(wrong)] == [None, 1, None]
    assert "✗</b> <code>4+3+1=9" in tables.laid_out(wrong) and "✗" not in tables.laid_out(THOUGHT)
    noticed = THOUGHT.replace("7+8=15", "7+8=16 no 7+8=15")
    assert "<s>7+8=16</s> 7+8=15" in tables.laid_out(noticed) and "✗" not in tables.laid_out(noticed)
    assert "✗" not in tables.show(wrong, find_slip=lambda columns: None).data, "the page uses the learner's function"


def test_with_the_problem_the_first_step_that_does_not_follow_is_marked():
    rng = random.Random(1)
    problem = next(one for one in iter(lambda: arithmetic.sample(rng, 3), None) if one.family != "fraction")
    work, _ = worked_solutions.write_solution(problem, "plain", rng)
    steps = work.split(".")
    copied_wrong = ".".join([steps[0], steps[1], "1" + steps[2], *steps[3:]])
    lines = thoughts.read(chat.completion_text(copied_wrong, "1"), problem)
    assert [line.wrong for line in lines[:3]] == [False, False, True] and not any(line.wrong for line in lines[3:])


def test_ones_come_first_in_a_division_too():
    (line,) = thoughts.read(r"<think>87/3:8/3=2r2,27/3=9;29.</think>\boxed{29}")
    assert line.columns == ("27/3=9", "8/3=2r2")


@pytest.mark.parametrize("other", ["\\boxed{7}", f"<think>{EVIL}</think>\\boxed{{7}}", "<think>47+38:7", "",
                                   "<think>the rule says so.</think>\\boxed{A}"])
def test_what_is_no_sum_is_shown_as_it_is(other):
    assert thoughts.read(other) == [] and EVIL not in tables.show(other).data
    assert "<table" not in tables.laid_out(other)


@pytest.fixture(scope="module")
def mid():
    return checkpoints.load(paths.SHIPPED / "mid"), checkpoints.load_tokenizer()


def test_attention_is_shared_out_over_the_tokens_before(mid):
    model, tokenizer = mid
    kernel = model.config._attn_implementation
    tokens, heads = looks.attention(model, tokenizer, "Compute 47+38.", "<think>47+38:7+8=15")
    assert model.config._attn_implementation == kernel and len(heads) == model.config.num_attention_heads
    weights = torch.tensor(heads)
    assert weights.shape[1:] == (len(tokens), len(tokens))
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))
    assert not weights.triu(1).any(), "no token looks at a later one"


def test_the_copying_head_is_the_one_that_looks_at_equal_tokens():
    tokens = ["7", "+", "8", "7"]
    elsewhere, copies = [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0] * 4], [[0] * 4, [0] * 4, [1, 0, 0, 0], [0] * 4]
    assert looks.copying_head(tokens, [elsewhere, copies], [3]) == 1
    assert looks.copied(tokens, copies, [3]) == 1 and looks.copied(tokens, copies, [3, 2]) == 0.5
    assert "outline" in looks.attention_html(tokens, copies, 3) and "<sub>1.00</sub>" in looks.attention_html(
        tokens, copies, 3)
    assert EVIL not in looks.attention_html([EVIL, "7"], [[1, 0], [0, 1]], 1)
    box = looks.attention_slider(tokens, [elsewhere, copies], 3, 1)
    before = box.children[-1].value
    box.children[1].value = 0
    assert box.children[-1].value != before


def test_the_tokens_of_a_pair_add_up_to_its_log_probabilities(mid):
    model, tokenizer = mid
    reference = checkpoints.load(paths.SHIPPED / "base")
    sides = looks.pair_tokens(model, reference, tokenizer, PAIR)
    ids, mask = minimal_dpo.to_rows(tokenizer, [PAIR])
    with torch.no_grad():
        policy, before = (minimal_dpo.completion_logprobs(one, ids, mask) for one in (model, reference))
    for side, now, then in zip(("chosen", "rejected"), policy.tolist(), before.tolist(), strict=True):
        assert sum(value for _, value, _ in sides[side]) == pytest.approx(now, abs=1e-3)
        assert sum(value for _, _, value in sides[side]) == pytest.approx(then, abs=1e-3)
    numbers = looks.pair_numbers(sides, 0.5)
    loss = minimal_dpo.dpo_loss(policy, before, mask.sum(1), 0.5).item()
    assert numbers["loss"] == pytest.approx(loss, rel=1e-4)


def test_a_pair_that_has_not_moved_has_loss_ln_2_and_the_largest_push():
    still = {"chosen": [("7", -1.0, -1.0)], "rejected": [("8", -3.0, -3.0)]}
    assert looks.pair_numbers(still, 0.1) == pytest.approx({"margin": 0.0, "loss": math.log(2), "push": 0.05})
    assert looks.beta_table(still).count("0.693") == 4
    box = looks.beta_slider(still)
    before = box.children[-1].value
    box.children[0].value = 1.0
    assert box.children[-1].value != before


GROUPS = [[{"prompt": "Compute 7+8.", "completion": EVIL, "verdict": verdict, "tokens": tokens} for verdict, tokens in
           group] for group in ([("right", 10), ("wrong", 20)], [("wrong", 30), ("unfinished", 40)])]


def test_what_a_temperature_gives():
    assert looks.outcome(GROUPS) == {"right": 0.25, "mixed": 0.5, "tokens": 25}
    page = looks.groups_html(GROUPS)
    assert "✓ ✗" in page and "✗ ✗" in page and "25.0 % right, 50.0 % of groups with both, 25 tokens" in page
    assert EVIL not in page
    box = looks.temperature_slider({0.3: GROUPS[:1], 1.0: GROUPS})
    before = box.children[-1].value
    box.children[0].value = 1.0
    assert box.children[-1].value != before


def test_the_place_of_doubt_is_one_between_digits():
    """Tokens 0 and 1 are digits. The second row is less certain, and about a comma."""
    logits = torch.tensor([[2.0, 1.0, -9.0, -9.0], [1.0, -9.0, 1.0, 1.0], [3.0, 1.0, -9.0, -9.0]])
    assert widgets.doubtful_place(logits, [0, 1]) == 0
    assert widgets.doubtful_place(logits, [0]) == 1, "where no place is between digits, the most doubtful one"


def test_figures_of_tokens_wrap_and_shorten():
    figure = pictures.token_heat({"chosen": [("<think>", -0.1)] + [("7", -2.0)] * 60}, "log π", width=44)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["chosen", ""]
    assert "think" in {text.get_text() for text in figure.axes[0].texts}


def test_wrong_steps_are_marked_in_two_columns_and_escaped():
    completion = "<think>47+38:7+8=15,4+3+1=9;95.</think>\\boxed{95}"
    place = completion.index("4+3")
    page = tables.wrong_steps([("<b>Compute</b>", completion, place, "4+3+1=9"), ("x", "", 0, "")])
    assert page.count("<th") - page.count("<thead") == 2 and "<b>Compute" not in page and "<think>" not in page
    assert "&lt;think&gt;47+38:7+8=15,</code><br>" in page and "✗</b> <code>4+3+1=9</code>" in page
    assert f"{100 * place / len(completion):.0f} % of the answer" in page
    assert "…" in tables.wrong_steps([("x", "0123456789", 8, "8")], before=3)


def test_a_narrow_table_breaks_no_interval_and_some_names():
    page = tables.table("", (), [("+5.4 [+3.7, +7.1]", "warmup_stable", "<i>")])
    assert '+5.4 <span style="white-space:nowrap">[+3.7, +7.1]</span>' in page
    assert "warmup_<wbr>stable" in page and "<i>" not in page
    assert "2=4;<wbr>4+" in tables.table("", (), [("22+60,-16,-22,-21,+32,/5:2+2=4;4+",)])  # a thought has no spaces
