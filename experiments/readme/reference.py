"""Blocks that describe the code: settings, commands, metrics and the limits of a client."""

import importlib
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin

import typer
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from pydantic.fields import FieldInfo
from typer.core import TyperArgument, TyperGroup, TyperOption
from typer.main import get_command

from experiments.bench.record import markdown_table
from overload_demo.api.api_metrics import ApiMetrics
from overload_demo.api.contract import MAX_IDEMPOTENCY_KEY
from overload_demo.api.front_door.connection import MAX_HEAD_BYTES, MAX_HEADERS
from overload_demo.cli import application
from overload_demo.config import Settings
from overload_demo.jobs import MAX_DEPTH, MAX_VALUE
from overload_demo.queue.results import QueueStats
from overload_demo.rest.client import MAX_REPLY_BYTES
from overload_demo.worker.journal import WorkerMetrics
from overload_demo.worker.loop import MAX_RESULT_BYTES

PROGRAMS = ("api", "worker", "store", "load", "live")
LIMITS = {
    "request body, bytes": "overload_max_body_bytes",
    "live connections of a process": "overload_max_connections",
    "memory of these connections, MB": "overload_connections_mb",
    "time to send a request or to read a response, s": "overload_request_patience_s",
    "time a request waits for the store, s": "overload_store_deadline_s",
    "jobs in one enqueue call": "overload_max_batch",
    "jobs in the queue (0 = no bound)": "overload_max_queue_depth",
    "memory of each embedded server (0 = no bound)": "overload_maxmemory",
}
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def blocks() -> dict[str, str]:
    """Every block by name."""
    return {
        "commands": commands_block(),
        "spike-options": options_block(),
        "settings": settings_block(),
        "limits": limits_block(),
        "metrics": metrics_block(),
    }


def settings_block() -> str:
    """Return every setting with its default, its range and its description."""
    rows = [
        (f"`{name.upper()}`", _default(field), _accepted(field), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return markdown_table(("variable", "default", "accepted", "meaning"), rows)


def commands_block() -> str:
    """Return every command and program with its options."""
    commands = [*_commands("overload-demo", get_command(application.app)), *map(_program, PROGRAMS)]
    rows = [(f"`{name}`", command.get_short_help_str(200), ", ".join(_options(command))) for name, command in commands]
    return markdown_table(("command", "what it does", "options"), rows)


def options_block() -> str:
    """Return the options of ``overload-demo spike`` with their defaults."""
    [spike] = (command for name, command in _commands("", get_command(application.app)) if name.split()[0] == "spike")
    rows = [
        (f"`{one.opts[0]}`", _shown_default(one), one.help or "")
        for one in spike.params
        if isinstance(one, TyperOption) and not one.hidden
    ]
    return markdown_table(("option", "default", "meaning"), rows)


def metrics_block() -> str:
    """Return every metric of the API, here of two shards, and of the worker, with its labels and its help text."""
    stats = QueueStats(*[0] * len(fields(QueueStats)))
    of_the_api, _ = ApiMetrics().exposition([stats, stats], "")
    texts = (("API", of_the_api.decode()), ("worker", generate_latest(WorkerMetrics().metrics).decode()))
    rows = []
    for program, text in texts:
        for family in text_string_to_metric_families(text):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            shown = f"`{name}{{{', '.join(sorted(labels))}}}`" if labels else f"`{name}`"
            rows.append((shown, program, family.type, family.documentation))
    return markdown_table(("metric", "of the", "type", "meaning"), rows)


def limits_block() -> str:
    """Return what a client may take of the API, from the settings and constants that bound it."""
    rows = [(what, f"{Settings.model_fields[name].default}", f"`{name.upper()}`") for what, name in LIMITS.items()]
    constants = {
        "nesting of a body or a result, levels": MAX_DEPTH,
        "size of `value`": MAX_VALUE,
        "request line and headers, bytes": MAX_HEAD_BYTES,
        "headers": MAX_HEADERS,
        "`Idempotency-Key`, characters": MAX_IDEMPOTENCY_KEY,
        "result of a job, bytes": MAX_RESULT_BYTES,
        "reply of the store, bytes": MAX_REPLY_BYTES,
    }
    return markdown_table(
        ("what", "at most", "setting"),
        rows + [(what, f"{it:g}" if it > 1e9 else f"{it}", "") for what, it in constants.items()],
    )


def _default(field: FieldInfo) -> str:
    if field.default_factory_takes_validated_data:
        return f"`{field.get_default(call_default_factory=True, validated_data={})}`"
    if field.default_factory is not None:
        return "per user"
    if field.default is None:
        return "unset"
    if isinstance(field.default, float):
        return f"`{field.default:g}`"
    return f"`{str(field.default).lower()}`" if field.default != "" else "empty"


def _accepted(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return " or ".join(f"`{one}`" for one in get_args(field.annotation))
    if field.annotation is bool:
        return "`true` or `false`"
    found = [(sign, getattr(one, name, None)) for one in field.metadata for name, sign in SIGNS.items()]
    bounds = [f"{sign} {bound:,.12g}" for sign, bound in found if bound is not None]
    return ", ".join(
        bounds + [f"≤ {one.max_length} characters" for one in field.metadata if hasattr(one, "max_length")]
    )


def _commands(prefix: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield each command below a group with the words that call it."""
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            yield from _commands(f"{prefix} {name}".strip(), inner)
    else:
        arguments = [_argument(one) for one in command.params if isinstance(one, TyperArgument)]
        yield " ".join([prefix, *arguments]), command


def _program(room: str) -> tuple[str, Any]:
    """Return ``python -m overload_demo.ROOM`` and its command: the module's app, or its function."""
    module = importlib.import_module(f"overload_demo.{room}.__main__")
    app = getattr(module, "app", None)
    if app is None:  # the function that the module runs as a command has its name, or is called main
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command()(getattr(module, room, None) or module.main)
    [(name, command)] = _commands(f"python -m overload_demo.{room}", get_command(app))
    return name, command


def _options(command: Any) -> list[str]:
    return [f"`{one.opts[0]}`" for one in command.params if isinstance(one, TyperOption) and not one.hidden]


def _argument(argument: TyperArgument) -> str:
    name = (argument.name or "").upper()
    return f"{name}..." if argument.nargs == -1 else name


def _shown_default(option: TyperOption) -> str:
    if isinstance(option.show_default, str):
        return option.show_default
    return "off" if option.default is False else f"`{getattr(option.default, 'value', option.default)}`"
