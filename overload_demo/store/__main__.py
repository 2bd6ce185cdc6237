"""``python -m overload_demo.store``: the embedded store by itself, in the foreground."""

import logging
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from overload_demo.config import load_settings
from overload_demo.errors import OverloadDemoError
from overload_demo.logs import log_to_stderr
from overload_demo.store.data_dir import State, Tokens
from overload_demo.store.service import StoreOptions, run_store

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _usable_token(token: str) -> str:
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise typer.BadParameter("must be printable ASCII without spaces")
    return token


@app.command()
def main(
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than loopback expose the store.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0 takes a free one.")] = 0,
    token: Annotated[
        str,
        typer.Option(
            help="Token each request must carry.", show_default="the data directory's own", callback=_usable_token
        ),
    ] = "",
    read_only_token: Annotated[
        str,
        typer.Option(
            help="Token that opens read commands only.", show_default="the data directory's own", callback=_usable_token
        ),
    ] = "",
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Directory of the store's files.", show_default="OVERLOAD_DATA_DIR, else per user"),
    ] = None,
    until_unused: Annotated[
        bool, typer.Option("--until-unused", hidden=True, help="End with the last user instead of on a signal.")
    ] = False,
) -> None:
    """A real Redis behind a gateway that speaks the Upstash REST protocol, on this machine.

    Runs until Ctrl-C or SIGTERM and then ends its server; the data stays. A write is on disk before it is acknowledged.
    """
    # In a terminal only what the user has to know; started by its users, the log tells the store's life.
    level = logging.INFO if until_unused else logging.WARNING
    try:
        # Whatever Upstash endpoint the environment names is not this store's business.
        settings = load_settings(upstash_redis_rest_url=None, upstash_redis_rest_token=None)
        log_to_stderr(settings.overload_log_format, level)
        where = data_dir or settings.overload_data_dir
        options = StoreOptions(where, host, port, SecretStr(token), SecretStr(read_only_token), until_unused)
        run_store(options, settings, lambda state, tokens: None if until_unused else _introduce(state, tokens, where))
    except OverloadDemoError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def _introduce(state: State, tokens: Tokens, data_dir: Path) -> None:
    """Tell the user where the store is; the only place where tokens are shown, because here they are the answer."""
    typer.echo(f"Store at {state.url} (data in {data_dir}, durability {state.durability}). Use it with:\n")
    typer.echo(f"  export UPSTASH_REDIS_REST_URL={state.url}")
    typer.echo(f"  export UPSTASH_REDIS_REST_TOKEN={tokens.standard}\n")
    typer.echo(f"A token for read commands only: {tokens.read_only}")
    typer.echo("Ctrl-C ends it; the data stays.")


if __name__ == "__main__":
    app(prog_name="python -m overload_demo.store")
