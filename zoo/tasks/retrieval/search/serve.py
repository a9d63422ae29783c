"""``python -m zoo serve INDEX``: a product search for browsers and programs."""

import signal
import socket

from zoo.core.command import CommandParser, GivenPath
from zoo.errors import UserError, invalid
from zoo.tasks.retrieval.search.query import add_effort, open_index

CONNECTIONS = 2000  # that are open at the same time; each takes some kilobytes
LAST_SECONDS = 30  # that requests may take that are served when the server is told to stop


def serve_parser() -> CommandParser:
    """Make the options of ``serve``."""
    parser = CommandParser(
        prog="python -m zoo serve",
        description="Serve an index that `index` wrote: a page to search by words and images, and the same over HTTP,"
        " which /openapi.json describes. The index is only read. Whoever reaches the address may search: keep it on"
        " this machine, or put a proxy with your users' names before it.",
    )
    parser.add_argument(
        "index", type=GivenPath, metavar="INDEX", help="The index: a folder, or a Milvus server, http://HOST:PORT."
    )
    parser.add_argument(
        "--host", type=str, default="127.0.0.1", help="Address to listen on; 0.0.0.0: reached from other machines."
    )
    parser.add_argument("--port", type=int, default=8000, help="Port to listen on.")
    parser.add_argument(
        "--model",
        type=str | None,
        default=None,
        help="The model that embedded the index, where it lies elsewhere than it did, or its exported ONNX folder.",
    )
    parser.add_argument(
        "--images", type=str | None, default=None, help="The products' images, where they lie elsewhere than they did."
    )
    parser.add_argument(
        "--allowed_hosts",
        type=list[str],
        default=[],
        help="Names that browsers reach the server by, such as [shop.example.com], besides this machine's own and its"
        " addresses.",
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=10.0,
        help="Searches a second that one address may ask for, three seconds' worth at once.",
    )
    add_effort(parser)
    return parser


def main(argv: list[str]) -> int:
    """Serve until the process is told to stop.

    Args:
        argv: The words after ``python -m zoo serve``.

    Returns:
        0, after SIGTERM or SIGINT and the requests that were being served.

    Raises:
        UserError: The index, its model or its images are not there or do not belong together, or the address is
            taken.
    """
    options = serve_parser().parse_args(argv)
    if not 0 < options.rate < float("inf"):
        raise invalid("--rate", options.rate, "give a number above 0")
    listening = listen(options.host, options.port)  # before the model is loaded, which takes a while
    try:
        import uvicorn

        from zoo.tasks.retrieval.search.server.app import create_app
        from zoo.tasks.retrieval.search.server.connections import AnnouncingServer, PunctualProtocol
        from zoo.tasks.retrieval.search.server.limits import Limits
    except ImportError as error:
        raise UserError(f"serve needs {error.name}, which is missing: pip install 'muge-zoo[search]'") from None
    from zoo.tasks.retrieval.search.images import ProductImages

    engine, encoder = open_index(options.index, options.model, effort=options.effort)
    images = ProductImages(options.images or engine.description.images)
    app = create_app(engine, encoder, images, Limits(rate=options.rate), options.allowed_hosts)
    config = uvicorn.Config(
        app,
        http=PunctualProtocol,
        ws="none",
        access_log=False,
        server_header=False,
        log_level="warning",
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=LAST_SECONDS,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn, which ends well by these, raises them again when it has
    AnnouncingServer(config).run(sockets=[listening])
    return 0


def listen(host: str, port: int) -> socket.socket:
    """Take an address.

    Raises:
        UserError: It is none of this machine's, or taken.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"--host {host} --port {port}: {words.lower()}; give another",
            argument="--port",
            value=port,
            valid="a port that is free",
        ) from None
