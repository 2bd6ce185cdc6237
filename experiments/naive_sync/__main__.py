"""``python -m experiments.naive_sync``: run the baseline alone, with the server flags of the real API.

With ``--parent-pipe`` it prints its URL as a JSON line, ignores SIGINT, and exits when its stdin closes.
"""

from typing import Annotated

import typer

from experiments.naive_sync.app import VARIANTS, create_app
from experiments.serving import listen, serve_for_parent, server_of


def main(
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on; 0 takes a free one", min=0, max=65535)] = 8001,
    variant: Annotated[str, typer.Option(help=f"one of {', '.join(VARIANTS)}", envvar="NAIVE_VARIANT")] = "def-slot",
    delay: Annotated[
        float, typer.Option(help="simulated work, seconds a job", envvar="WORKER_PROCESSING_DELAY", min=0)
    ] = 2.0,  # the worker's own default
    parent_pipe: Annotated[bool, typer.Option("--parent-pipe", help="exit when stdin closes")] = False,
) -> None:
    """Serve the API that does its work inside the request."""
    try:
        app = create_app(variant, delay)
        listener, url = listen(host, port)
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    if parent_pipe:
        serve_for_parent(app, listener, url)
    typer.echo(f"naive baseline ({variant}, {delay:g} s a job) on {url}")
    server_of(app).run(sockets=[listener])


if __name__ == "__main__":
    typer.run(main)
