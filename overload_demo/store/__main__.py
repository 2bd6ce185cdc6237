"""``python -m overload_demo.store``: the embedded store by itself, in the foreground."""

import logging
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.logs import log_to_stderr
from overload_demo.store.data_dir import State, Tokens
from overload_demo.store.service import StoreOptions, run_store

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="TCP port for clients that need a URL; 0 takes a free one.", show_default="none"
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address the port is opened on; others than loopback expose the store.")
    ] = "127.0.0.1",
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token each request must carry.", show_default="a new token")
    ] = None,
    read_only_token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token that opens read commands only.", show_default="a new token"),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Directory of the store's files.", show_default="OVERLOAD_DATA_DIR, else per user"),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Drop damaged commands from the data, keep a copy, say what was lost, and end."),
    ] = False,
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
        tokens = _token_in("--token-file", token_file), _token_in("--read-only-token-file", read_only_token_file)
        options = StoreOptions(where, host, port, *tokens, until_unused, repair)
        if repair and settings.overload_redis_url is not None:
            raise ConfigurationError("OVERLOAD_REDIS_URL is set: --repair is for the embedded store only")
        run_store(options, settings, lambda state, tokens, url: _introduce(state, tokens, url, options))
    except OverloadDemoError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def _token_in(option: str, file: Path | None) -> SecretStr:
    """The token in a file; never one of the command line, which every user of the machine can read."""
    if file is None:
        return SecretStr("")
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{option}: cannot read {file}: {getattr(error, 'strerror', 'no text')}") from None
    if not token or not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigurationError(f"{option}: {file} must hold one word of printable ASCII")
    return SecretStr(token)


def _introduce(state: State, tokens: Tokens, url: str, options: StoreOptions) -> None:
    """Tell the user where the store is; the only place where tokens are shown, because here they are the answer."""
    if options.until_unused:
        return
    if options.repair:
        typer.echo(state.notice or f"The data in {options.data_dir} loads: nothing is dropped.")
        if "damaged commands" in state.notice:
            typer.echo("Then repair what the queue lost with them: overload-demo queue reconcile")
        return
    typer.echo(
        f"Store in {options.data_dir}, durability {state.durability}; API and worker find it by OVERLOAD_DATA_DIR."
    )
    if url:
        typer.echo(f"Other clients use it with:\n\n  export UPSTASH_REDIS_REST_URL={url}")
        typer.echo(f"  export UPSTASH_REDIS_REST_TOKEN={tokens.standard}\n")
        typer.echo(f"A token for read commands only: {tokens.read_only}")
    else:
        typer.echo("API and worker with this OVERLOAD_DATA_DIR use it; for a URL of other clients add --port.")
    typer.echo("Ctrl-C ends it; the data stays.")


if __name__ == "__main__":
    app(prog_name="python -m overload_demo.store")
