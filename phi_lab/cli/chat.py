"""`phi-lab chat`: put questions to a model, with its thoughts shown and its answer judged."""

import sys
from pathlib import Path

from phi_lab.cli.options import add_command, add_engine, check_model, temperature
from phi_lab.core import paths
from phi_lab.core.formatting import printable

GREETING = """Ask for a sum in several steps, such as: Compute (84-57+36)/3.   An empty line ends.
All numbers on the way have to lie between 1 and 99: this model has seen no others."""


def add_parser(commands) -> None:
    """Add `chat` and its options."""
    parser = add_command(
        commands, "chat", run, "ask a model questions and see its thoughts, its answers and whether they are right",
        'phi-lab chat "Compute (84-57+36)/3."',
    )
    parser.add_argument("--model", type=Path, default=None, metavar="DIR",
                        help="a model folder; by default the shipped final checkpoint")
    parser.add_argument("--temperature", type=temperature, default=0.0,
                        help="0 takes the most likely token each time; above 0 tokens are sampled")
    add_engine(parser, "by default cpu for a Phi, hf for others")
    parser.add_argument("question", nargs="*", help="one question; without it, a conversation")


def run(options) -> None:
    """Answer one question, or each line until an empty one."""
    folder = options.model or paths.SHIPPED / "grpo"
    check_model(folder)
    from phi_lab import sampling
    from phi_lab.model import checkpoints

    model = checkpoints.load_to_sample(folder, options.engine or "cpu")
    tokenizer = checkpoints.load_tokenizer(folder)
    engine = options.engine or sampling.engine_for(model)
    if options.question:
        print_answer(model, tokenizer, " ".join(options.question), options.temperature, seed=0, engine=engine)
        return
    print(GREETING)
    turn = 0
    while question := _read_line():
        print_answer(model, tokenizer, question, options.temperature, seed=turn, engine=engine)
        turn += 1


def print_answer(model, tokenizer, question: str, temperature: float, seed: int, engine: str = "cpu") -> None:
    """Sample one answer and print it line by line; where the question can be computed, with its verdict.

    A question with a number outside the small world is answered too, after a line that says so.
    """
    from phi_lab import sampling, verify
    from phi_lab.model import chat
    from phi_lab.problems import arithmetic, parse_question

    gold = parse_question.evaluate_question(question)
    if gold and gold.outside is not None:
        world = f"the small world (whole numbers from 1 to {arithmetic.MAX_NUMBER})"
        print(f"note: {gold.outside} lies outside {world}: do not count on the answer")
    params = sampling.SamplingParams(n=1, temperature=temperature, max_tokens=256, seed=seed)
    ((reply,),) = sampling.sample(model, tokenizer, [question], params, engine=engine, quiet=True)
    text, judged = reply.text, ""
    if gold:
        verdict = verify.verify(text, str(gold.answer)).verdict
        judged = "   right" if verdict == verify.RIGHT else f"   {verdict}: it is {gold.answer}"
    print(printable(chat.format_completion(text), keep="\n") + judged)


def _read_line() -> str:
    if sys.stdin is None:  # closed, as by `<&-`
        return ""
    try:
        return input("> ").strip()
    except EOFError:
        return ""
