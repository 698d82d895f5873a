"""What is asked of a server that sends a teacher's thoughts apart from its answers, as vLLM's reasoning parser does:
used on vLLM itself, and on a server of the tests that splits as it does.
"""

import json
import urllib.request

from phi_lab import cli, sampling
from phi_lab.core.paths import TEACHER
from phi_lab.distill import shards
from phi_lab.model import chat, checkpoints

LONG, CUT = 128, 8  # tokens: a whole answer, and one that ends within its thought
PARSER = "deepseek_r1"  # vLLM 0.30's name for what reads <think> and </think>
QUESTION = "Compute (41+11-48)*9."  # which the shipped teacher thinks about, and answers within LONG tokens


def require_thoughts_apart(url, max_tokens):
    """The server's message holds thought and answer apart, without tags; the answer is null where the thought was cut.
    A thought is called `reasoning` by today's vLLM, `reasoning_content` by earlier ones.
    """
    body = {"model": "teacher", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "top_k": 0,
            "seed": 0, "max_tokens": max_tokens}
    request = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        message = json.loads(answer.read())["choices"][0]["message"]
    thought, end, rest = greedy([QUESTION], max_tokens)[0].removeprefix(chat.THINK).partition(chat.THINK_END)
    assert (message.get("reasoning") or message.get("reasoning_content"), message["content"]) == (thought, rest or None)
    assert bool(end) == (max_tokens == LONG)


def require_greedy_set(url, out, max_tokens, parsed=False):
    """A set distilled from the server holds our own greedy answers, with thoughts, tags and cuts. An answer without a
    thought, such as the shipped teacher's to one operation, is a cut thought to a reasoning parser: it is never right.
    """
    size = ("--questions", 8, "--samples", 1, "--temperature", 0, "--instruction", "", "--max-tokens", max_tokens)
    command = ["distill", "--teacher", "endpoint", "--teacher-url", url, "--teacher-model", "teacher", *size,
               "--extra-body", '{"top_k": 0, "min_p": 0}', "--out", out]
    assert cli.main(list(map(str, command))) == 0
    rows = {row["prompt"]: row for row in shards.rows(out / "rollouts")}
    ours = greedy(list(rows), max_tokens)
    thought = [answer.startswith(chat.THINK) for answer in ours]
    assert len(rows) == 8 and any(thought) and not all(thought)
    assert [row["completion"] for row in rows.values()] == [
        answer if begun or not parsed else chat.THINK + answer for answer, begun in zip(ours, thought, strict=True)]
    right = [row["verdict"] == "right" for row in rows.values()]
    whole = [chat.THINK_END in answer or not (begun or parsed) for answer, begun in zip(ours, thought, strict=True)]
    assert any(right) == any(whole) and not any(r and not w for r, w in zip(right, whole, strict=True))


def greedy(questions, max_tokens):
    """The shipped teacher's greedy answers by the engine cpu."""
    network, tokenizer = checkpoints.load(TEACHER), checkpoints.load_tokenizer(TEACHER)
    params = sampling.SamplingParams(n=1, temperature=0.0, max_tokens=max_tokens)
    return [answer.text for (answer,) in sampling.sample(network, tokenizer, questions, params, quiet=True)]
