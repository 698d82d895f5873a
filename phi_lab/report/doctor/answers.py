r"""Rules over sampled answers: rollouts with verdicts, or the completions that TRL logs with their rewards.

A rule takes rows with `completion`, and what there is of `prompt`, `answer` (the gold one), `verdict`, `finish_reason`
("stop" or "length"), `reward`, and `id` (of the question); it returns a `Finding` or None.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from phi_lab.report.doctor.finding import Finding, mean

TRUNCATED = 0.1  # of all answers. Convention; stricter than in training, where a limit is chosen to be tight
UNPARSED = 0.1  # of all answers. Convention: verifiers of this kind misread some hundredths
REPEATED = 0.05  # of all answers. Convention
ALL_WRONG = 0.5  # of all groups. Convention: half of the sampling is then lost
EQUAL_GROUPS = 0.8  # of all groups; as in reinforcement.py
LEAKED = 0.01  # of all questions. Convention: any is too much, but a phrase may match by chance
MIN_ANSWERS, MIN_GROUP, MIN_GROUPS = 20, 4, 5  # fewer say nothing
MOST_READ = 2000  # answers read for repetition, evenly spread
END = 2000  # characters of an answer's end in which a loop is looked for
LOOP = re.compile(r"(.{2,60}?)\1{3,}", re.DOTALL)  # the same piece at least four times in a row
LONG_LOOP, LONG_SENTENCE, TIMES = 40, 20, 4  # characters that count as repetition, and how often a sentence may stand
FINAL_ANSWER = re.compile(r"\\boxed\s*\{|</answer>|####|final answer|answer is", re.IGNORECASE)


def no_stop(rows: Sequence[dict]) -> Finding | None:
    """Of the answers that end at the token limit, at least half had given their final answer before."""
    cut = _truncated(rows)
    answered = [row for row in cut if FINAL_ANSWER.search(row["completion"])]
    if len(rows) < MIN_ANSWERS or len(cut) < TRUNCATED * len(rows) or len(answered) * 2 < len(cut):
        return None
    return Finding(
        "no-stop", f"{len(cut)} of {len(rows)} answers reach the token limit; {len(answered)} of these had given their "
        "final answer before",
        "The model answers and does not stop: the tokens after the answer are wasted, and may spoil the verdict.",
        "The stop token was not in the loss of fine-tuning (a padding token equal to it), or the chat template ends a "
        "turn with another token than the one at which sampling stops.",
        "Look at the last label of one training row, and at generation_config's eos_token_id; fine-tune with the stop "
        "token in the loss.",
    )


def truncation(rows: Sequence[dict]) -> Finding | None:
    """At least 10 % of the answers end at the token limit, most of them without a final answer."""
    cut = _truncated(rows)
    if len(rows) < MIN_ANSWERS or len(cut) < TRUNCATED * len(rows) or no_stop(rows):
        return None
    return Finding(
        "truncation", f"{len(cut)} of {len(rows)} answers ({len(cut) / len(rows):.0%}) reach the token limit without a "
        "final answer",
        "They count as wrong whatever they would have said; a training set of the others favours short answers.",
        "A token limit that is too short for these questions, or answers that loop.",
        "Read five of them: raise the limit (max_new_tokens) if they are on the way; if they loop, see repetition.",
    )


def unparsed(rows: Sequence[dict]) -> Finding | None:
    """Answers in which the verifier finds no final answer that it can read: at least 10 %. Those that are known to end
    at the token limit are left to `truncation`.
    """
    finished = [row for row in rows if "verdict" in row and row.get("finish_reason", "stop") == "stop"]
    unread = Counter(row["verdict"] for row in finished if row["verdict"] in ("unparsed", "unfinished", "timeout"))
    if len(finished) < MIN_ANSWERS or unread.total() < UNPARSED * len(finished):
        return None
    kinds = ", ".join(f"{count} {verdict}" for verdict, count in unread.most_common())
    return Finding(
        "unparsed", f"{unread.total()} of {len(finished)} answers have no final answer that can be read ({kinds})",
        "They count as wrong even where they are right: the reward measures format, not reasoning.",
        "The prompt does not ask for the format that the verifier reads (\\boxed{}), the model was not fine-tuned on "
        "it, or its answers were cut off.",
        "Read five of them with `phi-lab verify --explain TEXT --gold GOLD`; ask for the format in the prompt, or "
        "fine-tune on answers that have it.",
    )


def repetition(rows: Sequence[dict]) -> Finding | None:
    """At least 5 % of the answers loop: a piece four times in a row, or a sentence four times."""
    read = rows[:: max(1, len(rows) // MOST_READ)]
    looping = [row for row in read if loop(row["completion"])]
    if len(read) < MIN_ANSWERS or len(looping) < REPEATED * len(read):
        return None
    piece = " ".join(loop(looping[0]["completion"]).split())[:40]
    return Finding(
        "repetition", f"{len(looping)} of {len(read)} answers repeat themselves, such as “{piece}” again and again",
        "The model has fallen into a loop, from which it seldom returns before the token limit.",
        "Training on answers that repeat themselves, a policy that has collapsed, or greedy sampling of a small model.",
        "Remove such answers from the training set; sample at a temperature of 0.6 to 1.0; in GRPO, go back to an "
        "earlier checkpoint.",
    )


def all_wrong(rows: Sequence[dict]) -> Finding | None:
    """Questions to which none of at least four samples is right: at least half of them."""
    groups = _groups([row for row in rows if "verdict" in row])
    lost = [group for group in groups if not any(group)]
    if len(groups) < MIN_GROUPS or len(lost) < ALL_WRONG * len(groups):
        return None
    return Finding(
        "all-wrong", f"no right answer to {len(lost)} of {len(groups)} questions ({mean([len(g) for g in groups]):.0f} "
        "samples each)",
        "These questions give no training row, no chosen answer and no gradient.",
        "Questions that are too hard for this model, or a verifier that rejects right answers (wrong gold answers, an "
        "unread format).",
        "Judge ten of them by hand. If the model is wrong, take easier questions or more samples; if it is right, mend "
        "the gold answers or the format.",
    )


def zero_variance(rows: Sequence[dict]) -> Finding | None:
    """Groups of at least four samples to one question that are all right, all wrong, or all equally rewarded: at least
    80 % of them.
    """
    groups = _groups(rows)
    equal = [group for group in groups if len(set(group)) == 1]
    if len(groups) < MIN_GROUPS or len(equal) < EQUAL_GROUPS * len(groups):
        return None
    detail = ""
    if all("verdict" in row for row in rows):
        right = sum(group[0] > 0 for group in equal)
        detail = f": {right} all right, {len(equal) - right} all wrong"
    return Finding(
        "zero-variance", f"in {len(equal)} of {len(groups)} groups all samples are equal{detail}",
        "GRPO has no gradient from them, and Rollout DPO no pair. (To fine-tune on right answers alone is no problem.)",
        "Questions that are too easy or too hard for this model, a temperature near 0, or a reward that reads nothing.",
        "Choose questions by pass rate, between one and three quarters right; sample at a temperature of 0.8 to 1.0.",
    )


def leaked_answers(rows: Sequence[dict]) -> Finding | None:
    """Questions that state their gold answer, such as "The answer is 12" or `#### 12`: at least 1 %, and two."""
    prompts = {str(row["prompt"]): str(row["answer"]) for row in rows if row.get("answer") and "prompt" in row}
    return leak(prompts)


def leak(answers: dict[str, str]) -> Finding | None:
    """The finding of `leaked_answers`, from each prompt's answer."""
    leaked = [prompt for prompt, answer in answers.items() if states(prompt, answer)]
    if len(leaked) < max(2, LEAKED * len(answers)):
        return None
    example = " ".join(leaked[0].split())[-60:]
    return Finding(
        "leaked-answers", f"{len(leaked)} of {len(answers)} questions state their answer, such as “…{example}”",
        "The model is taught to copy, not to reason; accuracy on such questions means nothing.",
        "A column of the solution was joined to the question, or examples in the prompt hold the same question.",
        "Print ten prompts in full, and remove what follows the question.",
    )


def states(prompt: str, answer: str) -> bool:
    """Whether a prompt says that this is the answer: in a box, after ####, or after "answer is", "answer:"."""
    before = r"\\boxed\s*\{\s*|####\s*|(?:answer|solution|result)\s*(?:is|:|=)\s*\$?"
    return re.search(rf"(?:{before}){re.escape(answer.strip())}(?!\w|\.\d)", prompt, re.IGNORECASE) is not None


def loop(text: str) -> str:
    """The piece that a text repeats, or "": four times in a row in its end, or a whole sentence four times."""
    for match in LOOP.finditer(text[-END:]):
        if len(match.group()) >= LONG_LOOP and re.search(r"\w", match[1]):
            return match[1]
    sentences = Counter(piece.strip() for piece in re.split(r"[\n.]", text[-10 * END :]))
    repeated = [piece for piece, count in sentences.items() if count >= TIMES and len(piece) >= LONG_SENTENCE]
    return repeated[0] if repeated else ""


def _truncated(rows: Sequence[dict]) -> list[dict]:
    return [row for row in rows if row.get("finish_reason") == "length"]


def _groups(rows: Sequence[dict]) -> list[list[float]]:
    """The values of the samples to each question that has at least four: 1 for right and 0 for wrong, or rewards."""
    groups = defaultdict(list)
    for row in rows:
        if "verdict" in row:
            groups[row.get("id", row.get("prompt"))].append(float(row["verdict"] == "right"))
        elif "reward" in row:
            groups[row.get("id", row.get("prompt"))].append(row["reward"])
    return [group for group in groups.values() if len(group) >= MIN_GROUP]
