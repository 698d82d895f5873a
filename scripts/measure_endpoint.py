"""Does the endpoint client keep 64 requests in flight? The same requests go to a local server that answers each after a
fixed time, from our client and from a bare one (sockets kept open, no library), in turn; what ours takes longer is its
overhead over the server's own rate. The server is a process of its own.

    .venv/bin/python scripts/measure_endpoint.py [SECONDS] [REQUESTS] [RUNS]
"""

import asyncio
import json
import multiprocessing
import statistics
import sys
import time

from phi_lab.core import endpoint

FLIGHT = 64
TEXT = "<think>" + "7+8=15, carry 1. " * 120 + "</think>\\boxed{85}"  # about 2,000 characters
REPLY = json.dumps({
    "id": "r", "object": "chat.completion", "created": 0, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": TEXT}}],
    "usage": {"prompt_tokens": 40, "completion_tokens": 700, "total_tokens": 740},
}).encode()
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(REPLY) + REPLY
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Compute 47+38. " * 8}], "seed": 1}).encode()
QUESTION = b"POST /v1/chat/completions HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY


def serve(seconds: float, port) -> None:
    """Answer every request after `seconds`; tells `port` (a pipe) where."""

    async def one(reader, writer) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r")[0]))
                await asyncio.sleep(seconds)
                writer.write(ANSWER)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(one, "127.0.0.1", 0, backlog=256)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def bare(port: int, requests: int) -> float:
    """Seconds that a client without a library needs."""

    async def work(left: list[int]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while left:
            left.pop()
            writer.write(QUESTION)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r")[0]))
        writer.close()

    async def main() -> float:
        left, began = list(range(requests)), time.perf_counter()
        await asyncio.gather(*(work(left) for _ in range(FLIGHT)))
        return time.perf_counter() - began

    return asyncio.run(main())


def ours(port: int, requests: int) -> float:
    """Seconds that `endpoint.send_all` needs; its first request, which goes alone, is not counted."""
    whom = endpoint.Endpoint(f"http://127.0.0.1:{port}/v1", "m", concurrency=FLIGHT)
    messages = json.loads(BODY)["messages"]
    began: list[float] = []
    endpoint.send_all(whom, ((number, {"messages": messages, "seed": number}) for number in range(requests + 1)),
                 lambda key, completion: began.append(time.perf_counter()), kept="")
    return time.perf_counter() - began[0]


def main(seconds: float, requests: int, runs: int) -> None:
    """Run both in turn and print the ratios."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(seconds, there), daemon=True)
    server.start()
    port, ratios = here.recv(), []
    for _ in range(runs):
        alone, took = bare(port, requests), ours(port, requests)
        ratios.append(took / alone)
        print(f"{requests} requests of {seconds} s, {FLIGHT} in flight: bare client {requests / alone:.1f} a second, "
              f"ours {requests / took:.1f}, overhead {100 * (took / alone - 1):.1f} %", flush=True)
    print(f"overhead, median of {runs}: {100 * (statistics.median(ratios) - 1):.1f} %")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(float(given[0]) if given else 2.0, int(given[1]) if given[1:] else 640, int(given[2]) if given[2:] else 3)
