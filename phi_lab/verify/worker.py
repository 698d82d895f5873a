"""The worker process of the verifier: the only place where model text meets a parser.

A worker is a child process that reads a line of JSON (answer, gold, strict) from its standard input and answers with a
line: 1 same, 0 not the same, ? not understood, and the rule that decided. It bounds its own memory and processor time
where the platform can, so that no answer can hang or fill the machine. Processor time, not the clock's: a verdict is a
function of the answer, not of what else the machine does. A spare worker stands ready, so that the next question does
not wait for a start. Workers start on the first question, not on import, can be asked from any thread, and end with
their parent, however it ends.

It is no `multiprocessing` process: spawn would run the caller's main script again in the child, torch and all, and
breaks in scripts without a main guard; a plain child process does neither.
"""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

DEADLINE = 1.5  # seconds of the worker's processor time for one comparison
PATIENCE = 60.0  # seconds of the clock until a worker that gets no processor time is taken for lost
TRIES = 3  # workers that one question may lose to anything but the deadline
START_LIMIT = 60.0  # seconds for a start, on a cold disk
MEMORY = 1 << 30  # bytes of address space; a worker takes about 50 MB
SAID = {"1": "right", "0": "wrong", "?": "unparsed"}
OUT_OF_TIME = int(getattr(signal, "SIGPROF", 0))  # the signal that ends a worker at its deadline; Windows has none
MAX_WORKERS = max(1, min(8, os.cpu_count() or 1))


# ---- The parent's side --------------------------------------------------------------------------


class _Worker:
    """One child process."""

    def __init__(self, program: str) -> None:
        path = str(Path(__file__).resolve().parents[2])
        env = dict(os.environ, PYTHONPATH=os.pathsep.join([path, os.environ.get("PYTHONPATH", "")]))
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"from {program} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
        )
        assert self.process.stdin and self.process.stdout
        self.input, self.output = self.process.stdin, self.process.stdout
        self.ready = self.late = False

    def exchange(self, message: bytes, seconds: float) -> bytes:
        """Send a line and read one; b"" if the worker died, or was killed after `seconds` of the clock, which makes it
        `late`."""

        def kill() -> None:
            self.late = True
            self.process.kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            if message:
                self.input.write(message)
                self.input.flush()
            line = self.output.readline()
            return line.rstrip(b"\n") if line.endswith(b"\n") else b""
        except OSError:
            return b""
        finally:
            timer.cancel()

    def wait_until_ready(self) -> None:
        """Raises RuntimeError where the child does not start."""
        if not self.ready and self.exchange(b"", START_LIMIT) != b"+":
            self.close()
            raise RuntimeError("the verifier's worker process does not start: are mpmath and math-verify installed?")
        self.ready = True

    def close(self) -> int:
        """End the process; its exit status."""
        self.process.kill()
        status = self.process.wait()
        self.output.close()
        with contextlib.suppress(OSError):  # a request the worker never read
            self.input.close()
        return status


class Pool:
    """Workers that run `main` of the module `program`, each with one question at a time, and a spare one."""

    def __init__(self, program: str, spare: bool = True) -> None:
        self.program, self.lock = program, threading.Lock()
        self.idle: list[_Worker] = []
        self.free = threading.BoundedSemaphore(MAX_WORKERS)
        self.spare: _Worker | None = None
        self.wants_spare = spare

    def take(self) -> _Worker:
        """An idle worker, or the spare one, or a new one; ready to be asked."""
        with self.lock:
            worker = None
            while self.idle and worker is None:
                worker = self.idle.pop()
                if worker.process.poll() is not None:  # killed from outside
                    worker.close()
                    worker = None
            if worker is None:
                worker, self.spare = self.spare or _Worker(self.program), None
            if self.wants_spare and self.spare is None:
                self.spare = _Worker(self.program)  # starts while the caller goes on
        worker.wait_until_ready()
        return worker

    def ask(self, question: list, seconds: float) -> tuple[str, str]:
        """A worker's verdict, "right", "wrong", "unparsed" or "timeout", and the rule that decided. `seconds`: of the
        worker's processor time; where the platform cannot bound that (Windows), of the clock.

        Raises RuntimeError where workers get no processor time at all: that is no verdict on an answer."""
        message = json.dumps([question, seconds]).encode() + b"\n"
        worker: _Worker | None = None
        with self.free:
            for _ in range(TRIES):
                worker = self.take()
                try:
                    answer = worker.exchange(message, PATIENCE if OUT_OF_TIME else seconds)
                except BaseException:  # Ctrl-C in a notebook: this worker still owes an answer
                    worker.close()
                    raise
                if answer:
                    with self.lock:
                        self.idle.append(worker)
                    said, _, rule = answer.decode("utf-8", "replace").partition(" ")
                    return SAID.get(said, "timeout"), rule
                status = worker.close()
                out_of_time = status == -OUT_OF_TIME if OUT_OF_TIME else worker.late
                if out_of_time:
                    return "timeout", "the worker did not answer in time"
                # of memory, stopped or killed from outside: another try tells
        if worker and worker.late:
            raise RuntimeError(f"{TRIES} workers of the verifier got no processor time in {PATIENCE:g} seconds each")
        return "timeout", "the worker died"

    def close(self) -> None:
        with self.lock:
            workers, self.idle = self.idle, []
            if self.spare is not None:
                workers, self.spare = [*workers, self.spare], None
        for worker in workers:
            worker.close()


_PROGRAM = "phi_lab.verify.worker"
_pool = Pool(_PROGRAM)


def _forget() -> None:
    global _pool
    _pool = Pool(_PROGRAM)  # after a fork the workers are the parent's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
atexit.register(lambda: _pool.close())


def ask(answer: str, gold: str, strict: bool = True, seconds: float = DEADLINE) -> tuple[str, str]:
    """A worker's verdict on an answer: "right", "wrong", "unparsed" or "timeout", and the rule that decided."""
    return _pool.ask([answer, gold, strict], seconds)


# ---- The child's side ---------------------------------------------------------------------------


def main() -> None:
    """Serve comparisons by the project's own rules until the input ends."""
    serve(_rules, MEMORY)


def _rules() -> Callable:
    from phi_lab.verify.compare import compare

    return compare


def serve(prepare: Callable[[], Callable], memory: int) -> None:
    """The child: `prepare()` gives a function of one question that returns True, False or None (not understood), alone
    or with the rule that decided; its answers go out a line each. `memory`: bytes of address space, where the platform
    can bound it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    if OUT_OF_TIME:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the caller may ignore it
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints must not look like an answer
    compare = prepare()
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass  # Windows has none, macOS refuses some: the deadline still holds
    out.write(b"+\n")
    for line in sys.stdin.buffer:
        question, seconds = json.loads(line)
        _bound(seconds)
        try:
            said = compare(*question)
            same, rule = said if isinstance(said, tuple) else (said, "")
        except Exception as error:  # whatever a parser raises, MemoryError and RecursionError too
            same, rule = None, f"not read: {type(error).__name__}"
        _bound(0)
        said = "?" if same is None else "1" if same else "0"
        out.write(f"{said} {' '.join(rule.split())}\n".encode("utf-8", "replace"))


def _bound(seconds: float) -> None:
    """End this process, wherever it is, when it has used `seconds` of processor time; 0: no more."""
    if OUT_OF_TIME:
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _end_with(parent: int) -> None:
    """End this process soon after its parent. The end of its input says so too, but not where a process that the parent
    forked still holds the other end."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
