"""WORKER_HANDLER: what may be named, how it is called, and which mistakes are one-line errors at start."""

import functools
from pathlib import Path
from typing import Any

import pytest

from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError
from overload_demo.worker import JobContext
from overload_demo.worker.handler import AsyncRunner, Handler, load_handler
from overload_demo.worker.journal import describe

CONTEXT = JobContext("job_1", 2)


def payload_only(payload: Any) -> Any:
    return payload


def by_name(payload: Any, context: Any) -> Any:
    return payload, context


def by_name_alone(payload: Any, *, context: Any = None) -> Any:
    return payload, context


def by_annotation(payload: Any, retries: int = 3, *, about: JobContext) -> Any:
    return payload, about, retries


def by_text_annotation(payload: Any, about: "JobContext | None" = None) -> Any:
    return payload, about


def by_position(payload: Any, context: Any, /) -> Any:
    return payload, context


def keyword_option(payload: Any, *, retries: int = 3) -> Any:
    return payload, retries


def any_option(payload: Any, **options: Any) -> Any:
    return payload, options


def timeout(payload: Any, timeout: float = 10) -> Any:
    return payload, timeout


def any_arguments(*arguments: Any) -> Any:
    return arguments


class Shop:
    greeting = "hello"

    def __call__(self, payload: Any) -> Any:
        return payload, "called"

    def method(self, payload: Any, context: JobContext) -> Any:
        return payload, self.greeting, context

    @staticmethod
    def static(payload: Any) -> Any:
        return payload, "static"

    @classmethod
    def by_class(cls, payload: Any) -> Any:
        return payload, cls.greeting


class Closed:
    def __init__(self, needed: int) -> None: ...
    def method(self, payload: Any) -> Any: ...


instance = Shop()
partial = functools.partial(timeout, timeout=3)
partial_with_context = functools.partial(by_annotation, retries=1)
CALLED = {
    "payload_only": {"p": 1},
    "by_name": ({"p": 1}, CONTEXT),
    "by_name_alone": ({"p": 1}, CONTEXT),
    "by_annotation": ({"p": 1}, CONTEXT, 3),
    "by_text_annotation": ({"p": 1}, CONTEXT),
    "by_position": ({"p": 1}, CONTEXT),
    "keyword_option": ({"p": 1}, 3),
    "any_option": ({"p": 1}, {}),
    "timeout": ({"p": 1}, 10),
    "any_arguments": ({"p": 1},),
    "instance": ({"p": 1}, "called"),
    "instance.method": ({"p": 1}, "hello", CONTEXT),
    "Shop.method": ({"p": 1}, "hello", CONTEXT),
    "Shop.static": ({"p": 1}, "static"),
    "Shop.by_class": ({"p": 1}, "hello"),
    "partial": ({"p": 1}, 3),
    "partial_with_context": ({"p": 1}, CONTEXT, 1),
}


def nothing() -> None: ...


def three(payload: Any, context: Any, more: Any) -> None: ...


def keyword_needed(payload: Any, *, retries: int) -> None: ...


def required_second(payload: Any, second: Any) -> None: ...


def generator(payload: Any) -> Any:
    yield payload


REFUSED = {
    "nothing": "too many positional arguments in () -> None",
    "three": "missing a required argument: 'more'",
    "keyword_needed": "missing a required argument: 'retries'",
    "required_second": "missing a required argument: 'second'",
    "generator": "a generator function",
    "CONTEXT": "of type JobContext, which cannot be called",
    "Closed.method": "needed",
    "Shop.greeting.upper.nowhere": "nowhere",
    "absent": "absent",
    "": "module:function",
}


NAMELESS = """
class Meta(type):
    __name__ = property(lambda cls: 1 / 0)
class E(Exception, metaclass=Meta):
    pass
raise E
"""


def load(name: str) -> Handler:
    return load_handler(load_settings(worker_handler=name), AsyncRunner())


@pytest.mark.parametrize("name", CALLED)
def test_a_handler_gets_the_context_only_in_a_parameter_for_it(name: str) -> None:
    assert load(f"{__name__}:{name}")({"p": 1}, CONTEXT) == CALLED[name]


@pytest.mark.parametrize("name", REFUSED)
def test_a_handler_with_a_wrong_signature_is_a_one_line_error(name: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(f"{__name__}:{name}")

    assert str(refused.value).startswith(f"WORKER_HANDLER: cannot load '{__name__}:{name}': ")
    assert REFUSED[name] in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import sys\nsys.exit('not here')", "SystemExit: not here"),
        ("import sys\nsys.exit()", "SystemExit: no message, raised at "),
        ("raise ValueError('one\\ntwo\\x1b[2J')", "ValueError: one\\ntwo\\x1b[2J"),
        ("raise GeneratorExit", "GeneratorExit: no message, raised at "),
        ("class E(Exception):\n    def __str__(self): raise SystemExit(1)\nraise E", "cannot be read"),
        (NAMELESS, "cannot be read"),
    ],
)
def test_a_module_that_cannot_be_imported_is_a_one_line_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, text: str
) -> None:
    name = f"module_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ConfigurationError) as refused:
        load(f"{name}:handle")

    assert text in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_error_without_a_message_is_described_by_type_and_place() -> None:
    def fails() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError) as caught:
        fails()

    line = caught.traceback[-1].lineno + 1
    assert describe(caught.value) == f"TimeoutError: no message, raised at test_worker_signatures.py:{line} in fails"
