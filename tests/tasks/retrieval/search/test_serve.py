"""The server as a process of its own."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
import toy_shop

from zoo.errors import UserError
from zoo.tasks.retrieval.search import query
from zoo.tasks.retrieval.search.serve import listen, main

SERVE = f"""
import sys
sys.path.insert(0, {str(Path(toy_shop.__file__).parent)!r})
import toy_shop
from zoo.tasks.retrieval.search import query
query.load_encoder = lambda source: toy_shop.ColourEncoder(seconds=TAKEN)
from zoo.tasks.retrieval.search.server import connections
connections.HEADER_SECONDS = 0.5
from zoo.tasks.retrieval.search.serve import main
sys.exit(main(sys.argv[1:]))
"""


@contextlib.contextmanager
def serving(index, seconds=0.0):
    """A server of the toy shop in a process: the process and its port."""
    script = SERVE.replace("TAKEN", str(seconds))
    command = [sys.executable, "-c", script, index, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            yield process, int(re.fullmatch(r"Ready at http://127\.0\.0\.1:(\d+)/\n", line)[1])
        finally:
            process.kill()


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


def test_a_server_lets_go_of_slow_clients_and_finishes_what_it_serves_when_it_is_told_to_stop(toy_index):
    with serving(toy_index, seconds=0.7) as (process, port), ThreadPoolExecutor() as pool:
        whole = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for sent in ([b""], [b"GET /health HTTP/1.1\r\nHost: a"], [whole, b"GET /he"]):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                received = b""
                for part in sent:
                    client.sendall(part)
                    time.sleep(0.2)
                start = time.monotonic()
                with contextlib.suppress(ConnectionResetError):
                    while part := client.recv(4096):
                        received += part
                assert time.monotonic() - start < 4  # uvicorn's own patience with a client that it knows is 5 s
                assert (b'"status":"ok"' in received) == (sent[0] == whole)
        assert get(port, f"/items/{quote(toy_shop.ODD_IDS[2], safe='')}")[0] == 200

        answer = pool.submit(get, port, f"/search?q={quote('红')}&k=3")
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        status, body = answer.result()
        assert status == 200
        assert len(json.loads(body)["results"]) == 3
        assert process.wait(timeout=20) == 0
        with pytest.raises(ConnectionRefusedError):
            get(port, "/health")


def test_an_address_that_is_taken_is_said_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(query, "open_index", lambda *_: pytest.fail("the index was opened"))
    with listen("127.0.0.1", 0) as taken, pytest.raises(UserError) as raised:
        main(["nowhere", "--port", str(taken.getsockname()[1])])
    assert raised.value.argument == "--port"


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        (["--rate", "0"], "--rate"),
        (["--port", "70000"], "--port"),
        (["--host", "no.such.host.invalid"], "--port"),
        (["--port", "0"], "engine"),
    ],
)
def test_wrong_options_are_named(options, argument):
    with pytest.raises(UserError) as raised:
        main(["nowhere", *options])
    assert raised.value.argument == argument


def test_images_that_are_not_there_are_named(toy_index, monkeypatch):
    monkeypatch.setattr(query, "load_encoder", lambda _: toy_shop.ColourEncoder())
    with pytest.raises(UserError) as raised:
        main([toy_index, "--port", "0", "--images", os.path.join(toy_index, "none")])
    assert raised.value.argument == "--images"
