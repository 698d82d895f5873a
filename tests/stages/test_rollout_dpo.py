"""Rollout DPO: pairs, log-probabilities and losses by hand; what it reads and what it trains on."""

import math
import random
from dataclasses import replace
from functools import partial

import pytest
import torch
from stage_helpers import DPO, SFT, check_leftovers, log_probabilities, moved
from trl.trainer.utils import add_fused_lm_head

from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows
from phi_lab.distill import shards
from phi_lab.model import chat, checkpoints
from phi_lab.problems import arithmetic, worked_solutions
from phi_lab.problems.problem import Problem
from phi_lab.problems.step_check import first_wrong_step, step_at
from phi_lab.stages import dpo_trainer, lm_trainer, packing, preference_pairs, rollout_dpo


def rollout(name, tokens, **rest):
    return {"id": name, "tokens": tokens, "prompt": f"Compute {name}.", "completion": f"{name} in {tokens}", **rest}


def test_pairs_are_those_closest_in_length():
    right = [rollout("a", tokens) for tokens in (10, 50, 90)]
    wrong = [rollout("a", tokens) for tokens in (52, 12, 200)]
    pairs = preference_pairs.pair_closest_length(right, wrong, 2, random.Random(0))
    assert sorted((good["tokens"], bad["tokens"]) for good, bad in pairs) == [(10, 12), (50, 52)]
    everything = preference_pairs.pair_closest_length(right, wrong, 9, random.Random(0))
    assert len(everything) == 3  # no rollout is used twice
    assert sorted((good["tokens"], bad["tokens"]) for good, bad in everything) == [(10, 12), (50, 52), (90, 200)]


def test_pairs_are_of_one_question_in_trls_columns(tokenizer):
    right = [rollout(name, tokens) for name in "abc" for tokens in (10, 20, 30)]
    wrong = [rollout(name, tokens) for name in "bcd" for tokens in (11, 21, 31)]
    rows = preference_pairs.make_pairs(right, wrong, DPO, 0, preference_pairs.pair_closest_length)
    assert len(rows) == 4  # b and c, two each
    for row in rows:
        assert set(row) == {"prompt", "chosen", "rejected"}
        assert (
            row["prompt"] == f"Compute {row['chosen'][0]}." and row["chosen"][0] == row["rejected"][0]
        )
    few = preference_pairs.make_pairs(right, wrong, replace(DPO, max_pairs=3), 0, preference_pairs.pair_closest_length)
    assert len(few) == 3
    with pytest.raises(UserError, match="both a right and a plausible wrong"):
        preference_pairs.make_pairs(right[:3], wrong, DPO, 0, preference_pairs.pair_closest_length)


def test_steps_are_paired_where_two_rollouts_part():
    """The wrong rollout up to its first wrong step, that step, and the right step of a sibling closest in length."""
    problem = Problem("arithmetic", "expression", 2, "47+38-12", "Compute 47+38-12.", "73",
                      (("+", 47, 38), ("-", 85, 12)))
    start, step, end = "<think>47+38,-12.", "47+38:7+8=15,4+3+1=8;85,-12.", "85-12:5-2=3,8-1=7;73.</think>\\boxed{73}"
    slow = step.replace("7+8=15", "7+8=16 no 7+8=15")
    texts = {
        start + step + end: "right", start + slow + end: "right",
        start + "47+38:7+8=15,4+3=7;75,-12.75-12=63.</think>\\boxed{63}": "wrong",
        start + "47+38:7+8=15,4+3=7;75,-12.75-12=64.</think>\\boxed{64}": "wrong",  # the same wrong step again
        start + step + "85-12:5-2=3;3.</think>\\boxed{3}": "wrong",
        "<think>47-38,-12.47-38=9": "wrong",  # and all others begin with the right plan
        "47+38": "wrong",  # there is no beginning to share
        start + slow + "85-12:5-2=3,8-2=6;63.": "unfinished",
    }
    rows = [{"id": problem.id, "completion": text, "verdict": verdict} for text, verdict in texts.items()]
    pairs = preference_pairs.make_step_pairs([problem], rows, DPO, 0)
    assert all(set(pair) == {"prompt", "prefix", "chosen", "rejected"} for pair in pairs) and len(pairs) == 2
    every = preference_pairs.make_step_pairs([problem], rows, replace(DPO, pairs_per_question=9), 0)
    assert {(pair["prefix"], pair["chosen"], pair["rejected"]) for pair in every} == {
        (start, step, "47+38:7+8=15,4+3=7;75,-12."),
        (start + step, "85-12:5-2=3,8-1=7;73.", "85-12:5-2=3;3."),
        ("<think>", "47+38,-12.", "47-38,-12."),
    }
    assert len(preference_pairs.make_step_pairs([problem], rows, replace(DPO, max_pairs=1), 0)) == 1
    with pytest.raises(UserError, match="^no two rollouts part at a wrong step: take more questions$"):
        preference_pairs.make_step_pairs([problem], rows[:2], DPO, 0)


def test_a_step_has_the_tokens_that_it_has_in_its_completion(tokenizer):
    """Wherever a worked solution is cut, beginning and step are its ids, the loss is on the step, and none stops."""
    rng = random.Random(0)
    for problem in arithmetic.sample_problems(40, 3, levels=(2, 4, 6)):
        for style in worked_solutions.STYLES:
            text = chat.completion_text(*worked_solutions.write_solution(problem, style, rng))
            asked, ids = chat.prompt_ids(tokenizer, problem.prompt), chat.completion_ids(tokenizer, text)
            position = len(chat.THINK)
            while position < len(text):
                step = step_at(text, position)
                pair = {"prompt": problem.prompt, "prefix": text[:position], "chosen": step, "rejected": "7."}
                found, labels = packing.pair_document(tokenizer, pair, "chosen")
                assert found == asked + ids[: len(found) - len(asked)]
                assert tokenizer.decode([label for label in labels if label != packing.IGNORE]) == step
                assert labels[-1] == found[-1] != tokenizer.eos_token_id
                position += len(step)
    whole = {"prompt": "Find 9*7.", "chosen": "63", "rejected": "6"}
    assert packing.pair_document(tokenizer, whole, "rejected") == packing.document(tokenizer, "Find 9*7.", "6")


def test_what_both_sides_begin_with_is_trls_prompt(tmp_path, tokenizer):
    pair = {"prompt": "Find 9*7.", "prefix": "<think>", "chosen": "9*7=63.", "rejected": "</think>"}
    arguments = rollout_dpo.trainer_arguments(DPO, tmp_path, 1, 0)
    dataset, lengths = dpo_trainer.pairs_dataset(tokenizer, [pair], arguments)
    (row,) = dataset
    assert row["prompt_ids"] == [*chat.prompt_ids(tokenizer, "Find 9*7."), *chat.completion_ids(tokenizer, "<think>")]
    assert tokenizer.decode(row["chosen_ids"]) == "9*7=63."
    assert row["rejected_ids"] == tokenizer.convert_tokens_to_ids(["</think>"])  # the mark, not its letters
    assert lengths == [2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + 1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["student", "steps"])
def test_the_student_s_own_rollouts_are_paired_and_counted(tmp_path, shipped, kind):
    student, tokenizer = shipped("sft"), checkpoints.load_tokenizer(shipped("sft"))
    questions = arithmetic.sample_problems(16, 0, levels=(3, 4))
    config = replace(DPO, pairs=kind, learning_rate=3e-5)
    result = rollout_dpo.train(
        student, tmp_path / "none", tmp_path / "none", tmp_path, config, seed=0, questions=questions
    )
    check_leftovers(result, tmp_path)
    assert all((tmp_path / name).is_file() for name in ("right.jsonl", "wrong.jsonl", "funnel.json"))
    assert result.metrics[0]["learning_rate"] > 0 and moved(student, result.model) > 0
    rollouts, pairs = list(shards.rows(tmp_path / "rollouts")), read_rows(tmp_path / "pairs.jsonl")
    assert len(rollouts) == 8 * 16 and {row["temperature"] for row in rollouts} == {0.8}
    verdicts = {row["completion"]: row["verdict"] for row in rollouts}
    by_prompt = {problem.prompt: problem for problem in questions}
    for pair in pairs:
        if kind == "student":
            assert (verdicts[pair["chosen"]], verdicts[pair["rejected"]]) == ("right", "wrong")
        else:
            begun = len(pair["prefix"])
            assert first_wrong_step(by_prompt[pair["prompt"]], pair["prefix"] + pair["rejected"]) == begun
            assert first_wrong_step(by_prompt[pair["prompt"]], pair["prefix"] + pair["chosen"]) in (
                None, begun + len(pair["chosen"]))  # nothing is wrong up to there
    sampled = sum(preference_pairs.count_tokens(tokenizer, rollouts))
    sides = [packing.pair_document(tokenizer, pair, side) for pair in pairs for side in ("chosen", "rejected")]
    scored = sum(len(ids) for ids, _ in sides)
    assert result.forward_tokens == sampled + scored
    again = rollout_dpo.train_on_pairs(student, pairs, tmp_path / "again", config, seed=0)
    assert moved(again.model, result.model) == 0 and again.forward_tokens == scored
    with pytest.raises(UserError, match="unknown pairs 'best': choose teacher, student or steps"):
        rollout_dpo.train(student, *[tmp_path] * 3, replace(config, pairs="best"), seed=0, questions=questions)


def test_the_rival_learns_the_chosen_sides_and_nothing_else(tmp_path, shipped, monkeypatch):
    pairs = [
        {"prompt": f"Compute {n}+3.", "prefix": "<think>", "chosen": f"{n}+3={n + 4}.", "rejected": f"{n}+3={n + 3}."}
        for n in range(2, 6)
    ]
    trained, fit = [], lm_trainer.fit
    monkeypatch.setattr(lm_trainer, "fit", lambda *arguments, **options: trained.append(arguments) or fit(
        *arguments, **options))
    config = replace(SFT, batch_size=4, steps=3, muon=False)
    result = rollout_dpo.train_on_chosen(shipped("sft"), pairs, tmp_path / "steps", config, seed=0)
    model, tokenizer, documents = trained[0][:3]
    assert [tokenizer.decode([label for label in labels if label != packing.IGNORE]) for _, labels in documents] == [
        pair["chosen"] for pair in pairs]
    assert result.metrics[-1]["step"] == 3 and moved(shipped("sft"), result.model) > 0
    paid = rollout_dpo.train_on_chosen(
        shipped("sft"), pairs, tmp_path / "paid", config, seed=0, compute=2.2 * sum(len(ids) for ids, _ in documents)
    )
    assert paid.metrics[-1]["step"] == 2


def test_only_mistakes_that_the_student_might_make_are_paired(student, data):
    """The log-probability of a whole answer with its stop token, whatever shares its batch, decides."""
    model, tokenizer = checkpoints.load(student).eval(), checkpoints.load_tokenizer(student)
    rows = read_rows(data / "wrong.jsonl")
    with torch.no_grad():
        wanted = [log_probabilities(model, tokenizer, row["prompt"], row["completion"]).sum().item() for row in rows]
    assert preference_pairs.log_probabilities(model, tokenizer, rows) == pytest.approx(wanted, rel=1e-4)
    middle = sorted(wanted)[len(wanted) // 2]
    config = replace(DPO, max_student_nll=-middle + 1e-3)
    kept = preference_pairs.filter_by_student_likelihood(model, tokenizer, rows, config)
    assert kept == [row for row, value in zip(rows, wanted, strict=True) if value >= middle]
    assert 0 < len(kept) < len(rows)
    no_limit = replace(DPO, max_student_nll=math.inf)
    assert preference_pairs.filter_by_student_likelihood(None, None, rows, no_limit) == rows  # no model is needed


@pytest.mark.parametrize("max_student_nll", [math.inf, 1e6])
def test_dpo_counts_what_it_reads_to_choose_and_to_score(tmp_path, student, data, max_student_nll):
    pairs, files = [], (data / "train-right.jsonl", data / "wrong.jsonl")

    def pair(right, wrong, count, rng):
        pairs.extend(chosen := preference_pairs.pair_closest_length(right, wrong, count, rng))
        return chosen

    config = replace(DPO, max_pairs=10**6, batch_size=16, max_student_nll=max_student_nll)
    result = rollout_dpo.train(student, *files, tmp_path, config, seed=0, pair=pair)
    answered, tokenizer = {row["id"] for row in read_rows(files[0])}, checkpoints.load_tokenizer(student)

    def tokens(rows):
        return sum(len(packing.document(tokenizer, row["prompt"], row["completion"])[0]) for row in rows)

    read = tokens(row for one in pairs for row in one)
    if max_student_nll < math.inf:  # each mistake was read, question and all
        read += tokens(row for row in read_rows(files[1]) if row["id"] in answered)
    assert result.forward_tokens == pytest.approx(read, abs=2 * len(pairs))  # their stop tokens


def test_dpo_leaves_out_what_is_too_long(tmp_path, student, data):
    seen, files, tokenizer = [], (data / "train-right.jsonl", data / "wrong.jsonl"), checkpoints.load_tokenizer(student)

    def pair(right, wrong, count, rng):
        seen.extend([*right, *wrong])
        return preference_pairs.pair_closest_length(right, wrong, count, rng)

    def tokens(row):
        return len(packing.document(tokenizer, row["prompt"], row["completion"])[0])

    lengths = sorted(tokens(row) for file in files for row in read_rows(file))
    middle = lengths[len(lengths) // 2]
    config = replace(DPO, max_pairs=4, max_tokens=middle)
    rollout_dpo.train(student, *files, tmp_path / "some", config, seed=0, pair=pair)
    assert max(map(tokens, seen)) == middle < lengths[-1]
    with pytest.raises(UserError, match="no question has both"):
        rollout_dpo.train(student, *files, tmp_path / "none", replace(DPO, max_tokens=3), seed=0)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="no question has both"):
        rollout_dpo.train(student, files[0], tmp_path / "empty.jsonl", tmp_path / "none", config, seed=0)


def test_dpo_trains_on_what_was_selected(tmp_path, student, data):
    seen = []

    def pair(right, wrong, count, rng):
        seen.extend(wrong)
        return preference_pairs.pair_closest_length(right, wrong, count, rng)

    def select(model, tokenizer, wrong, config):
        return list(wrong)[::2]

    files = data / "train-right.jsonl", data / "wrong.jsonl"
    rollout_dpo.train(student, *files, tmp_path, replace(DPO, max_pairs=4), seed=0, pair=pair, select=select)
    answered = {row["id"] for row in read_rows(files[0])}
    wrong = [row for row in read_rows(files[1]) if row["id"] in answered]
    assert sorted(map(str, seen)) == sorted(map(str, wrong[::2]))


@pytest.mark.slow
def test_dpo_starts_at_ln_2_and_prefers_right_answers(tmp_path, student, data):
    pairs = []

    def pair(right, wrong, count, rng):
        pairs.extend(chosen := preference_pairs.pair_closest_length(right, wrong, count, rng))
        return chosen

    result = rollout_dpo.train(
        student, data / "train-right.jsonl", data / "wrong.jsonl", tmp_path, DPO, seed=0, pair=pair
    )
    check_leftovers(result, tmp_path)
    first = result.metrics[0]  # it sees the reference itself
    assert first["step"] == 1 and first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["learning_rate"] == DPO.learning_rate, "a step at rate zero is none"
    assert first["rewards/chosen"] == pytest.approx(0, abs=1e-5) and first["rewards/rejected"] == pytest.approx(
        0, abs=1e-5
    )
    assert {"logps/chosen", "logps/rejected", "rewards/accuracies"} <= set(first)
    assert moved(student, result.model) > 0.001

    def margins(folder):
        model, tokenizer = checkpoints.load(folder).eval(), checkpoints.load_tokenizer(folder)
        with torch.no_grad():
            return torch.stack(
                [
                    log_probabilities(model, tokenizer, good["prompt"], good["completion"]).sum()
                    - log_probabilities(model, tokenizer, bad["prompt"], bad["completion"]).sum()
                    for good, bad in pairs
                ]
            )

    change = DPO.beta * (margins(result.model) - margins(student))
    assert -torch.nn.functional.logsigmoid(change).mean() < math.log(2) - 0.02
    assert (change > 0).float().mean() > 0.8


@pytest.mark.slow
def test_dpo_log_probabilities_are_those_of_whole_answers(tmp_path, student, data):
    """One step on every pair: TRL's logps are ours, prompt left out, stop token included."""
    used = []

    def pair(right, wrong, count, rng):
        used.append((right[0], wrong[0]))
        return used[-1:]

    config = replace(DPO, learning_rate=0.0, batch_size=24, max_pairs=24)
    result = rollout_dpo.train(
        student, data / "train-right.jsonl", data / "wrong.jsonl", tmp_path, config, seed=0, pair=pair
    )
    model, tokenizer = checkpoints.load(student).eval(), checkpoints.load_tokenizer(student)
    for side, name in enumerate(("logps/chosen", "logps/rejected")):
        with torch.no_grad():
            rows = [two[side] for two in used]
            sums = [log_probabilities(model, tokenizer, row["prompt"], row["completion"]).sum() for row in rows]
        assert result.metrics[0][name] == pytest.approx(torch.stack(sums).mean().item(), rel=1e-4)


@pytest.mark.slow
def test_dpo_by_length_is_dpo(tmp_path, student, data):
    """Two pairs at a time, sorted, are the batch in one piece: loss, margins, gradient, weights; and the reference's
    log-probabilities go back to the pairs that they are of (else the first loss is not ln 2).
    """
    files, results = (data / "train-right.jsonl", data / "wrong.jsonl"), []
    for rows in (8, 2):
        config = replace(DPO, batch_size=8, max_pairs=24, hardware=replace(DPO.hardware, micro_batch_size=rows))
        results.append(rollout_dpo.train(student, *files, tmp_path / str(rows), config, seed=0))
    whole, parts = results
    assert parts.metrics[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    compared = {*rollout_dpo.METRICS, "loss", "grad_norm"} - {"rewards/accuracies"}  # which are ties at first
    assert compared <= set(whole.metrics[0])
    for one, other in zip(whole.metrics, parts.metrics, strict=True):
        for name in compared & set(one):
            assert other[name] == pytest.approx(one[name], rel=1e-3, abs=1e-4), name
    assert moved(whole.model, parts.model) < 1e-3 * moved(student, whole.model)


@pytest.mark.parametrize("trained", [True, False])
def test_a_question_read_once_gives_what_two_rows_give(student, trained):
    """Chosen and rejected answers behind one reading of their question: TRL's own head over a row each is the judge,
    for what it returns, for the gradient, and for an answer whose neighbour is another one.
    """
    model, one = checkpoints.load(student), torch.Generator().manual_seed(0)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    prompts, responses = torch.tensor([9, 4, 12]), torch.tensor([[20, 7, 1], [3, 25, 1]])
    width = int((prompts + responses).max())
    ids, place = torch.randint(10, 400, (6, width), generator=one), torch.arange(width)
    ids[3:] = torch.where(place < prompts[:, None], ids[:3], ids[3:])
    mask = (place < (prompts + responses).flatten()[:, None]).long()
    labels = ids.masked_fill((mask == 0) | (place < prompts.repeat(2)[:, None]), packing.IGNORE)
    batch = {"input_ids": ids * mask, "attention_mask": mask, "labels": labels, "use_cache": False}
    found, gradients = [], []
    for scored in (model, partial(dpo_trainer.shared_prefix_logprobs, model)):
        with torch.set_grad_enabled(trained):
            found.append(scored(**batch, fused_lm_head=True))
            if trained:
                model.zero_grad()
                (found[-1].log_probs * torch.arange(1.0, 7)[:, None]).sum().backward()
                gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
    theirs, ours = found
    for name in ("log_probs", "entropy", "mean_logits"):
        assert torch.allclose(getattr(ours, name), getattr(theirs, name), atol=1e-4), name
    scored = labels[:, 1:] != packing.IGNORE
    assert torch.equal(ours.is_top1 & scored, theirs.is_top1 & scored)
    assert ours.log_probs[:, 0].eq(0).all() and (ours.log_probs < 0).sum() == responses.sum()
    if trained:
        assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[0].norm()
    other = batch | {"input_ids": batch["input_ids"].clone()}
    other["input_ids"][3:][labels[3:] != packing.IGNORE] = 77
    changed = dpo_trainer.shared_prefix_logprobs(model, **other, fused_lm_head=True)
    assert torch.allclose(changed.log_probs[:3], ours.log_probs[:3], atol=1e-5)  # the chosen ones
    assert not torch.allclose(changed.log_probs[3:], ours.log_probs[3:], atol=1)


@pytest.mark.parametrize("shared_prefix", [True, False])
def test_pairs_of_like_length_go_together(shared_prefix):
    chance = torch.Generator().manual_seed(0)
    prompts, responses = torch.randint(1, 9, (10,), generator=chance), torch.randint(1, 30, (2, 10), generator=chance)
    mask = (torch.arange(40) < (prompts + responses).flatten()[:, None]).long()
    answers = mask * (torch.arange(40) >= prompts.repeat(2)[:, None])
    batch = {"input_ids": torch.arange(20)[:, None].expand(20, 40) * mask, "attention_mask": mask,
             "completion_mask": answers, "ref_chosen_logps": torch.arange(10.0)}
    parts = list(dpo_trainer.microbatches_by_length(batch, 4, shared_prefix))
    order = torch.cat([indices for indices, _ in parts])
    assert sorted(order.tolist()) == list(range(10)) and [len(indices) for indices, _ in parts] == [4, 4, 2]
    tokens = (prompts + responses.sum(0) if shared_prefix else prompts + responses.amax(0))[order]
    assert torch.equal(tokens, tokens.sort().values)
    for indices, part in parts:
        assert torch.equal(part["ref_chosen_logps"], indices.float())
        assert torch.equal(part["input_ids"][:, 0], torch.cat([indices, indices + 10]))  # chosen above rejected
        longest = (prompts + responses)[:, indices].max()
        assert part["input_ids"].shape[1] == longest == part["attention_mask"].sum(1).max()
