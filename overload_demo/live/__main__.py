"""``python -m overload_demo.live``: one page to project in class."""

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from overload_demo.config import load_settings
from overload_demo.console import log_to_stderr, one_line_errors, run_command
from overload_demo.errors import ConfigurationError
from overload_demo.live.feed import Feed
from overload_demo.process import run_async

DEFAULT_URL = "http://127.0.0.1:8000"
UNUSED = {"a URL": "speed output nodes", "--control": "speed", "--rehearse": "speed port", "--replay": "output nodes"}


def main(
    context: typer.Context,
    url: Annotated[str | None, typer.Argument(help="URL of a running API to watch.", show_default=DEFAULT_URL)] = None,
    control: Annotated[bool, typer.Option("--control", help="Start a stack, with buttons to act on it.")] = False,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Play every act before the class, and print the results.")
    ] = False,
    replay: Annotated[Path | None, typer.Option(help="Play a recorded run folder; needs no store.")] = None,
    speed: Annotated[float, typer.Option(help="Speed of the replay, 1 as recorded.", min=0.1, max=100)] = 1.0,
    port: Annotated[int, typer.Option(help="Port of the page.", show_default="a free one", min=0, max=65535)] = 0,
    output: Annotated[Path, typer.Option(help="Folder for run folders.")] = Path("runs"),
    nodes: Annotated[int, typer.Option(help="Servers of the stack's store; 6 or more: a cluster.")] = 1,
) -> None:
    """Show a spike live, on a page: watch an API, play the acts of a class, or replay a recorded run."""
    with one_line_errors():
        log_to_stderr(load_settings().overload_log_format, logging.WARNING)
        chosen = zip(UNUSED, (url is not None, control, rehearse, replay is not None), strict=True)
        ways = [way for way, is_chosen in chosen if is_chosen] or ["a URL"]
        if len(ways) > 1:
            raise ConfigurationError("one at a time: a URL to watch, --control, --rehearse or --replay")
        for name in UNUSED[ways[0]].split():
            if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE":
                raise ConfigurationError(f"--{name} has no effect with {ways[0]}")
        if replay is not None:
            work = _replay(replay, speed, port)
        elif rehearse:
            work = _rehearse(output, nodes)
        elif control:
            work = _control(output, port, nodes)
        else:
            work = _watch(url or DEFAULT_URL, port)
        run_async(work, "all started processes have ended")


async def _watch(url: str, port: int) -> None:
    from overload_demo.live.page import Page
    from overload_demo.live.sources import ApiWatch

    feed = Feed(title="overload_demo", status=f"watching {url}")
    with contextlib.closing(ApiWatch(url, feed)) as watch:
        await watch.check()
        with Page(feed, port=port) as page:
            _print(f"{page.address}  watching {url}")
            await watch.run()


async def _replay(folder: Path, speed: float, port: int) -> None:
    from overload_demo.live.page import Page
    from overload_demo.live.sources import Replay

    feed, recorded = Feed(), Replay(folder)
    with Page(feed, port=port) as page:
        _print(f"{page.address}  a recorded run at {speed:g} times its speed, repeated until Ctrl-C")
        while True:
            await recorded.play(feed, speed)
            await asyncio.sleep(10.0)


async def _control(output: Path, port: int, nodes: int) -> None:
    from overload_demo.live.page import Page
    from overload_demo.live.stage import open_stage, rehearsed

    sizes = rehearsed(output, nodes)
    if sizes is None:
        _print("no rehearsal of this machine: measuring it first (ten seconds)")
    feed = Feed()
    async with open_stage(feed, output, sizes, nodes) as stage:
        with Page(feed, port=port, controls=stage) as page:
            _print(f"{page.address}  with controls; the part after # is secret")
            await asyncio.Event().wait()


async def _rehearse(output: Path, nodes: int) -> None:
    from overload_demo.live.stage import rehearse

    console = Console()
    console.print(await rehearse(output, lambda text: console.print(f"  {text}", highlight=False), nodes))


def _print(text: str) -> None:
    Console().print(text, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run_command(main, "python -m overload_demo.live")
