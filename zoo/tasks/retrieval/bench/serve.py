"""``bench serve``: a server of a product search under the requests of many clients at once."""

import http.client
import json
import random
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from zoo.core.bench.harness import Row, protocol, report, run_bench
from zoo.errors import UserError

BLOCKS = 10
UPLOADS = 0.1  # share of the searches that are by an image
IMAGES = 4  # thumbnails that a client asks for after a search


def main(argv: list[str]) -> int:
    """Run ``bench serve``."""
    return run_bench("serve", measure, argv)


def measure(*, index: str, clients: int = 20, seconds: int = 300, output: str | None = None) -> None:
    """Measure the requests a second that `serve` answers on this machine, whose processor the clients share.

    Each client searches by words of the metadata, no two texts alike, or by an image, one search in ten; then it asks
    for four images of what it found. An answer that is no 200 ends the bench as an error.

    Args:
        index: The index to serve, as of ``serve``.
        clients: Clients that ask at the same time.
        seconds: How long they ask.
        output: JSON file that rows and protocol are also written to.

    Raises:
        UserError: The server does not start, or a request fails.
    """
    import numpy as np

    command = [sys.executable, "-m", "zoo", "serve", index, "--port", "0", "--rate", "1e9"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline() if server.stdout else ""
            if not line:
                raise UserError(f"serve {index} did not start; it says why above", argument="index", value=index)
            port = int(line.rstrip("/\n").rpartition(":")[2])
            words = _words(port)
            memory = [_memory(server.pid)]
            rates, answers = [], []
            for block in range(BLOCKS):
                print(f"bench serve: block {block + 1} of {BLOCKS}", file=sys.stderr, flush=True)
                end = time.monotonic() + seconds / BLOCKS
                with ThreadPoolExecutor(clients) as pool:
                    asked = [pool.submit(_ask, port, words, end, f"{block}-{number}") for number in range(clients)]
                    answered = [answer for each in asked for answer in each.result()]
                rates.append(len(answered) / (seconds / BLOCKS))
                answers += answered
                memory.append(_memory(server.pid))
        finally:
            server.terminate()
    failed = Counter(answer.status for answer in answers if answer.status != 200)
    if failed:
        raise UserError(f"{failed.total():,} of {len(answers):,} requests failed, by status: {dict(failed)}")
    took = {
        what: np.array([a.seconds for a in answers if a.what == what]) * 1000 for what in ("text", "upload", "image")
    }
    about = {
        f"{what}, milliseconds": f"{len(each):,} requests: p50 {np.percentile(each, 50):.0f}, p99"
        f" {np.percentile(each, 99):.0f}, slowest {each.max():.0f}"
        for what, each in took.items()
        if len(each)
    }
    about["server's memory, MiB"] = ", ".join(f"{each / 2**20:.0f}" for each in memory) + " (ready, after each block)"
    packages = ("fastapi", "uvicorn", "lancedb", "pymilvus")
    metadata = protocol(packages=packages, clients=clients, seconds=seconds, errors=0, **about)
    row = Row(f"{clients} clients", "requests/s", {"serve": rates}, "serve", None)
    report("serve", [row], metadata, output=output)


class Answer(NamedTuple):
    """What a request came to."""

    what: str  # text, upload or image
    status: int
    seconds: float


def _ask(port: int, words: list[str], end: float, seed: str) -> list[Answer]:
    """Be a client until a time: searches, each followed by some images of what it found."""
    choose, answers, image = random.Random(seed), [], b""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(what: str, path: str, body: bytes | None = None) -> bytes:
        start = time.perf_counter()
        method, headers = ("POST", {"Content-Type": "image/jpeg"}) if body else ("GET", {})
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            data, status = response.read(), response.status
        except OSError:
            connection.close()
            data, status = b"", 0
        answers.append(Answer(what, status, time.perf_counter() - start))
        return data if status == 200 else b""

    while time.monotonic() < end:
        if image and choose.random() < UPLOADS:
            found = ask("upload", "/search?k=24", image)
        else:
            text = f"{' '.join(choose.sample(words, min(2, len(words))))} {choose.randrange(10**6)}"
            found = ask("text", f"/search?k=24&q={quote(text)}")
        results = json.loads(found)["results"] if found else []
        for result in choose.sample(results, min(IMAGES, len(results))):
            image = ask("image", f"{result['image']}?size=320") or image
    connection.close()
    return answers


def _words(port: int) -> list[str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/fields")
    fields = json.loads(connection.getresponse().read())["fields"]
    connection.close()
    return [value["value"] for field in fields for value in field["values"]] or ["红色", "连衣裙"]


def _memory(process: int) -> int:
    """Bytes that a process holds; on Linux."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
