"""Look at pictures and denoise them on a page in the browser: `n2n serve [FOLDER ...]`.

Serves this machine alone; the address that is printed has a token, without which nothing is shown.
Pictures can be dropped on the page, too. Originals are never changed; results are written where
--out says, by `n2n denoise`.
"""

import socket
import sys
import webbrowser
from pathlib import Path
from typing import Any

from n2n_lightning.files import InputError, Parser, command

EVERY_ADDRESS = ("", "0.0.0.0", "::")
INSTALL = "pip install 'n2n_lightning[serve]'"
SHUTDOWN_SECONDS = 2  # that open connections may take when the server ends


def parser() -> Parser:
    """Return the parser of the command line."""
    p = Parser(prog="n2n serve", description=__doc__)
    p.add_argument("files", nargs="*", metavar="FOLDER", help="folders and files to look at")
    p.add_argument(
        "-o", "--out", type=Path, default=Path("clean"), help="folder of results (default clean)"
    )
    p.add_argument("--port", type=int, default=0, help="default 0: any that is free")
    p.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen at; any other than the default lets other machines in",
    )
    p.add_argument("--no-browser", action="store_true", help="open no browser")
    p.add_argument(
        "--checkpoint",
        type=Path,
        action="append",
        default=[],
        help="a run folder or checkpoint to choose on the page; may be repeated",
    )
    p.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps; default: a GPU if any")
    return p


def main() -> int:
    args = parser().parse_args()
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ModuleNotFoundError as error:
        raise InputError(f"needs {error.name}, which is not installed: {INSTALL}") from None
    from n2n_lightning.serve.security import Guard, bracketed, is_loopback, named_hosts

    if not 0 <= args.port <= 65535:
        raise InputError("port", args.port, "must be 0 to 65535")
    if args.host in EVERY_ADDRESS:
        reason = "is every address at once; name the one that browsers will use"
        raise InputError("host", args.host, reason)
    if args.out.exists() and not args.out.is_dir():
        raise InputError("out", args.out, "is a file; name a folder")
    if not is_loopback(args.host):
        print(
            f"warning: {args.host} lets other machines in; they need the token, which travels"
            " unencrypted",
            file=sys.stderr,
        )
    listener = _listener(args.host, args.port)
    port = listener.getsockname()[1]
    page = page_of(args)
    guard = Guard(page.app(), named_hosts(args.host, port))
    address = f"http://{bracketed(args.host)}:{port}/?token={guard.token}"
    print(address, flush=True)
    print("Ctrl-C ends the server", flush=True)
    if not args.no_browser:
        webbrowser.open(address)
    config = uvicorn.Config(
        guard,
        log_level="warning",
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        page.library.close()
    return 0


def page_of(args: Any) -> Any:
    """Return the application of the page.

    Args:
        args: of the command.

    Raises:
        InputError: a file or checkpoint does not exist.
    """
    from n2n_lightning.inference.arguments import add_denoise_options
    from n2n_lightning.inference.checkpoint import read_info
    from n2n_lightning.serve.app import Site
    from n2n_lightning.serve.library import Library

    for path in args.checkpoint:
        read_info(path)
    of_denoise = Parser(prog="n2n denoise")
    add_denoise_options(of_denoise)
    library = Library(args.files)
    return Site(library, args.out, args.device, args.checkpoint, of_denoise)


def _listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens, so that its port is known before the server starts."""
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
    except OSError as error:
        raise InputError("port", port, f"cannot be used at {host}: {error.strerror}") from error
    listener.listen()
    return listener


if __name__ == "__main__":
    command(main, parser)
