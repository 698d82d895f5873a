"""The worker process of the verifier: the only place where model text meets a parser.

A worker is a child process that reads two strings a line (JSON) from its standard input and
answers with one byte: 1 same, 0 not the same, ? unreadable. It bounds its own memory where the
platform can; the parent (`ask`) kills it at a deadline and starts another, so that no answer can
hang or fill the machine. Workers start on the first question, not on import, and can be asked from
any thread.

It is no `multiprocessing` process: spawn would run the caller's main script again in the child,
torch and all, and breaks in scripts without a main guard; a plain child process does neither.

Inside the worker `eval`, `sympify` of text and sympy's `parse_expr` are switched off (`harden`). A
parsed expression is never printed and never leaves the worker.
"""

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

DEADLINE = 1.5  # seconds for one comparison; with the rest an answer comes within 2
START_LIMIT = 60.0  # seconds for importing sympy, on a cold disk
MEMORY = 1 << 30  # bytes of address space; sympy with its parser takes about 150 MB
SAID = {b"1": "right", b"0": "wrong", b"?": "unparsed"}
MAX_WORKERS = max(1, min(8, os.cpu_count() or 1))


# ---- The parent's side --------------------------------------------------------------------------


class _Worker:
    def __init__(self, program):
        path = str(Path(__file__).resolve().parents[2])
        env = dict(os.environ, PYTHONPATH=os.pathsep.join([path, os.environ.get("PYTHONPATH", "")]))
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"from {program} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
        )
        self.ready = False

    def exchange(self, message, seconds):
        """Send a line and read one byte; b"" if the worker died or was killed at the deadline."""
        timer = threading.Timer(seconds, self.process.kill)
        timer.daemon = True
        timer.start()
        try:
            if message:
                self.process.stdin.write(message)
                self.process.stdin.flush()
            return self.process.stdout.read(1)
        except OSError:
            return b""
        finally:
            timer.cancel()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(OSError):  # a request the worker never read
            self.process.stdin.close()


class Pool:
    """Workers that run `main` of the module `program`; each takes one question at a time."""

    def __init__(self, program):
        self.program, self.idle, self.lock = program, [], threading.Lock()
        self.free = threading.BoundedSemaphore(MAX_WORKERS)

    def take(self):
        with self.lock:
            worker = self.idle.pop() if self.idle else None
        worker = worker or _Worker(self.program)
        if not worker.ready and worker.exchange(b"", START_LIMIT) != b"+":
            worker.close()
            raise RuntimeError("the verifier's worker process does not start: is math-verify installed?")
        worker.ready = True
        return worker

    def ask(self, a, b, seconds):
        """What a worker says about two texts: "right", "wrong", "unparsed" or "timeout"."""
        message = json.dumps([a, b]).encode() + b"\n"
        with self.free:
            for last in (False, True):
                worker = self.take()
                start = time.monotonic()
                try:
                    answer = worker.exchange(message, seconds)
                except BaseException:  # Ctrl-C in a notebook: this worker still owes an answer
                    worker.close()
                    raise
                if not answer:
                    worker.close()
                    worker = _Worker(self.program)  # starts while the caller goes on
                with self.lock:
                    self.idle.append(worker)
                if answer or last or time.monotonic() - start > seconds * 0.9:
                    return SAID.get(answer, "timeout")
                # it died early: of memory, or killed from outside; one more try tells

    def close(self):
        while self.idle:
            self.idle.pop().close()


_pool = Pool("phi_lab.verify.worker")


def _forget():
    global _pool
    _pool = Pool("phi_lab.verify.worker")  # after a fork the workers are the parent's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
atexit.register(lambda: _pool.close())


def ask(a, b, seconds=DEADLINE):
    """Compare two answers in a worker: "right", "wrong", "unparsed" or "timeout"."""
    return _pool.ask(a, b, seconds)


# ---- The child's side ---------------------------------------------------------------------------


def main():
    """Serve comparisons by the project's own rules until the input ends."""
    serve(_rules, MEMORY)


def _rules():
    harden()
    from phi_lab.verify.compare import compare

    return compare


def serve(prepare, memory):
    """The child: `prepare()` gives compare(a, b) -> True, False or None (unreadable), whose answers go out a byte each.
    `memory`: bytes of address space, where the platform can bound it."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints must not look like an answer
    compare = prepare()
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass  # Windows has none, macOS refuses some: the deadline still holds
    out.write(b"+")
    for line in sys.stdin.buffer:
        try:
            same = compare(*json.loads(line))
        except Exception:  # whatever a parser raises, MemoryError and RecursionError too
            same = None
        out.write(b"?" if same is None else b"1" if same else b"0")


def harden():
    """Import the parser, then make every road from text to `eval` a dead end, in this process."""
    import latex2sympy2_extended.latex2sympy2 as parser
    import sympy.physics.units  # noqa: F401  it parses its own unit names when it is first needed
    from sympy.parsing import sympy_parser

    def refuse(*args, **kwargs):
        raise RuntimeError("text may not reach parse_expr")

    for module in (sympy_parser, parser):  # sympify and Number go through sympy_parser
        for name in ("parse_expr", "eval_expr", "eval"):
            setattr(module, name, refuse)
