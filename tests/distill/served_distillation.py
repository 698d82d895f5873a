"""`phi-lab distill` against a server of the tests, and what such a server replies."""

from phi_lab import cli


def distil(tmp_path, server, *more):
    """Run the command against the server; returns the exit code."""
    command = ["distill", "--teacher", "endpoint", "--teacher-url", server.url, "--questions", "6", "--samples", "2"]
    return cli.main([*command, "--out", str(tmp_path / "set"), *map(str, more)])


def reply(text, tokens=7, reason="stop", **extra):
    """A chat completion as servers send it."""
    return {
        "choices": [{"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": text, **extra}}],
        "usage": {"prompt_tokens": 11, "completion_tokens": tokens, "total_tokens": 11 + tokens},
    }


def good(handler, body):
    handler.send(200, reply("<think>so it is. </think>\\boxed{7}"))
