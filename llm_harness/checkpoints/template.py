"""A checkpoint's chat template: jinja, in a sandbox, with what such templates count on.

The names and settings are those that templates are written for (the `transformers` library's
documentation, "Chat templates"): lines of tags leave no blank lines behind, `raise_exception`
refuses a chat, `strftime_now` tells the date, `tojson` writes JSON as it is and not for a web page,
loops can be left, and `{% generation %}` marks an answer, which is nothing to be done about here.
"""

import json
from collections.abc import Mapping
from datetime import date as calendar_date
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import ext, nodes, parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llm_harness.errors import HarnessError
from llm_harness.model import Chat

# What a template that is not fit for a chat may raise, beside its own exceptions.
_FAILURES = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


class _Generation(ext.Extension):
    """`{% generation %} ... {% endgeneration %}`, which stands for what is inside."""

    tags = {"generation"}  # noqa: RUF012, jinja2 declares it so

    def parse(self, parser: parser.Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def rendered(
    source: str,
    chat: Chat,
    special: Mapping[str, str],
    *,
    to_be_answered: bool = True,
    date: str | None = None,
) -> str:
    """A chat as the text that the model reads.

    Args:
        source: the template.
        chat: in the order of its messages.
        special: texts of special tokens, by the names that templates have for them (`bos_token`).
        to_be_answered: whether the beginning of an answer follows.
        date: day that `strftime_now` tells, as 2025-07-01; None for today, where a chat's text
            depends on the day that it is asked.

    Raises:
        HarnessError: it is no template, or it refuses the chat.
    """

    def strftime_now(form: str) -> str:
        day = datetime.now() if date is None else calendar_date.fromisoformat(date)
        return day.strftime(form)

    template = _compiled(source)
    try:
        return template.render(
            messages=[{"role": each.role, "content": each.content} for each in chat],
            tools=None,
            documents=None,
            add_generation_prompt=to_be_answered,
            strftime_now=strftime_now,
            **special,
        )
    except _FAILURES as error:
        raise HarnessError(f"the chat template refuses this chat: {_line(error)}") from None


@lru_cache(maxsize=8)
def _compiled(source: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[ext.loopcontrols, _Generation]
    )
    environment.globals["raise_exception"] = _refuse
    environment.filters["tojson"] = _to_json
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        raise HarnessError(f"the chat template is none: {_line(error)}") from None


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, indent: int | None = None, ensure_ascii: bool = False, **how: Any) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii, **how)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
