"""``python -m overload_demo.store``: the embedded store by itself, in the foreground."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.logs import log_to_stderr
from overload_demo.store.data_dir import State
from overload_demo.store.gateway.endpoint import Tokens
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
        str, typer.Option(help="Address of the port; any other than loopback exposes the store.")
    ] = "127.0.0.1",
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that each request must carry.", show_default="a new token")
    ] = None,
    read_only_token_file: Annotated[
        Path | None, typer.Option(help="File with the token for read commands only.", show_default="a new token")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Directory of the store's files.", show_default="OVERLOAD_DATA_DIR, else per user"),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Drop damaged commands from the data, keep a copy, report the loss, exit.")
    ] = False,
    until_unused: Annotated[
        bool, typer.Option("--until-unused", hidden=True, help="End with the last user instead of on a signal.")
    ] = False,
) -> None:
    """Run a real Redis behind a gateway that speaks the Upstash REST protocol, on this machine.

    Runs until Ctrl-C or SIGTERM and then ends its server; the data stays. A write is on disk before it is acknowledged.
    """
    # A terminal shows warnings only; the log of a store that its users have started shows its whole life.
    level = logging.INFO if until_unused else logging.WARNING
    try:
        # An Upstash endpoint in the environment does not concern this store.
        settings = load_settings(upstash_redis_rest_url=None, upstash_redis_rest_token=None)
        log_to_stderr(settings.overload_log_format, level)
        tokens = Tokens(_token("--token-file", token_file), _token("--read-only-token-file", read_only_token_file))
        options = StoreOptions(data_dir or settings.overload_data_dir, host, port, until_unused, repair)
        if repair and settings.overload_redis_url is not None:
            raise ConfigurationError("OVERLOAD_REDIS_URL is set: --repair is for the embedded store only")
        run_store(options, settings, tokens, lambda state, url: _introduce(state, tokens, url, options))
    except OverloadDemoError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def _token(option: str, file: Path | None) -> str:
    """The token in a file, or an empty one; not an argument itself, which every user of the machine could read."""
    if file is None:
        return ""
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{option}: cannot read {file}: {getattr(error, 'strerror', 'no text')}") from None
    if not token or not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigurationError(f"{option}: {file} must hold one word of printable ASCII")
    return token


def _introduce(state: State, tokens: Tokens, url: str, options: StoreOptions) -> None:
    """Print how to use the store. Tokens are shown here and nowhere else."""
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
        typer.echo("API and worker with this OVERLOAD_DATA_DIR use it; for other clients, --port opens a URL.")
    typer.echo("Ctrl-C ends it; the data stays.")


if __name__ == "__main__":
    app(prog_name="python -m overload_demo.store")
