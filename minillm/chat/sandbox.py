"""A chat template is a program, and often a stranger's: it runs in a process of its own.

jinja2's sandbox keeps a template away from Python's insides. It does not keep it from a loop of
10^15 rounds, or from a text of 10^9 letters. So a child process does the work, which the system
ends when it takes too much time or memory; the parent only reads the texts that come back. The
child starts with the first template (a quarter of a second), serves all that follow, and ends with
its parent.

This file is both sides: imported, the parent's `Sandbox`; run as a program, the child. Between them
go lines of JSON. The child's surroundings are those that `transformers` gives to templates.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import subprocess
import sys
import threading
from typing import Any

SECONDS = 2  # of computing, for the texts of one request
MEMORY = 512 << 20  # bytes of the child, Python and jinja2 included
MOST_TEMPLATE, MOST_TEXT = 200_000, 20_000_000  # characters of a template, and of all texts of one request
MISSING = "a chat template needs the library jinja2, which is not installed: pip install jinja2"


class Sandbox:
    """Renders templates in a child process; may be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0  # the process that started it: after a fork, the child is somebody else's

    def render(self, template: str, variables: list[dict[str, Any]]) -> list[Rendered]:
        """The texts that a template makes, one for each table of variables, which JSON can hold.

        Raises ValueError when the template is wrong or refuses (`raise_exception`), TimeoutError
        when it takes too much time or memory, ModuleNotFoundError where jinja2 is not installed.
        """
        if len(template) > MOST_TEMPLATE:
            raise ValueError(f"a chat template may have {MOST_TEMPLATE:,} characters; got {len(template):,}")
        request = json.dumps({"template": template, "variables": variables}).encode("ascii") + b"\n"
        with self._lock:
            answer = self._ask(request)
        if not answer:
            raise TimeoutError(
                f"the chat template took more than {SECONDS} seconds or {MEMORY >> 20} MB, and was stopped"
            )
        content = json.loads(answer)
        if "missing" in content:
            raise ModuleNotFoundError(MISSING)
        if "error" in content:
            raise ValueError(content["error"])
        return [Rendered(text, content["mark"]) for text in content["texts"]]

    def _ask(self, request: bytes) -> bytes:
        """Send a line, return the line that comes back: nothing when the child ended."""
        for last in (False, True):
            child = self._running()
            assert child.stdin is not None and child.stdout is not None
            try:
                child.stdin.write(request)
                child.stdin.flush()
                answer = child.stdout.readline()
            except BrokenPipeError:  # it had ended while nobody asked; a second time, because of what was asked
                self._end()
                if last:
                    return b""
                continue
            except BaseException:  # Ctrl-C: half a request is in the pipe
                self._end()
                raise
            if not answer.endswith(b"\n"):
                self._end()
                return b""
            return answer
        raise AssertionError("unreachable")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._owner != os.getpid() or self._child.poll() is not None:
            self._child = subprocess.Popen(
                [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, start_new_session=True,  # Ctrl-C is for the parent
            )  # fmt: skip
            self._owner = os.getpid()
        return self._child

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()


class Rendered:
    """A text, and the stretches of it that stood between `{% generation %}` and `{% endgeneration
    %}`.

    text: as the template wrote it. generations: [start, end) of each stretch.
    """

    def __init__(self, text: str, mark: str) -> None:
        self.text, self.generations = "", list[tuple[int, int]]()
        for i, part in enumerate(text.split(mark)):  # before, inside, after, inside, ...
            if i % 2:
                self.generations.append((len(self.text), len(self.text) + len(part)))
            self.text += part


# ---- the child -----------------------------------------------------------------------------------


def serve() -> None:
    """Answer requests until there are no more."""
    mark = f"\ufdd0{secrets.token_hex(16)}\ufdd0"  # around generated stretches: nobody can guess it
    try:
        compiled = functools.lru_cache(16)(_environment(mark).from_string)
    except ImportError:
        sys.stdin.buffer.readline()  # all of it: a pipe closed too soon would be another error
        print(json.dumps({"missing": "jinja2"}), flush=True)
        return
    for line in sys.stdin.buffer:
        _limit()
        try:
            request = json.loads(line)
            template, texts = compiled(request["template"]), list[str]()
            for variables in request["variables"]:
                texts.append(_text(template, variables, MOST_TEXT - sum(map(len, texts))))
            answer = {"texts": texts, "mark": mark}
        except MemoryError:
            os._exit(1)
        except RecursionError:
            answer = {"error": "the chat template calls itself without end"}
        except Exception as error:  # whatever a stranger's program raises
            line_number = getattr(error, "lineno", None)  # of a syntax error
            where = "" if line_number is None else f" (line {line_number})"
            answer = {"error": f"the chat template failed: {error}"[:1000] + where}
        print(json.dumps(answer), flush=True)


def _text(template: Any, variables: dict[str, Any], room: int) -> str:
    """What a compiled template writes."""
    pieces = []
    for piece in template.generate(**variables):
        room -= len(piece)
        if room < 0:
            raise ValueError(f"it wrote more than {MOST_TEXT:,} characters")
        pieces.append(piece)
    return "".join(pieces)


def _limit() -> None:
    """From now on, so much time and memory; where the system has no such limits, none."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = int(used.ru_utime + used.ru_stime) + SECONDS + 1
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _environment(mark: str) -> Any:
    """jinja2 with the names and settings for which chat templates are written."""
    from datetime import datetime

    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` ... `{% endgeneration %}`: what the assistant wrote."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

        def _marked(self, caller: Any) -> str:
            return mark + caller() + mark

    class Namespace(jinja2.utils.Namespace):
        """Without names that lead to Python's insides."""

        def __init__(*arguments: Any, **named: Any) -> None:  # a template may call one of its names self
            own, *tables = arguments
            jinja2.utils.Namespace.__init__(own)
            for name, value in dict(*tables, **named).items():
                own[name] = value

        def __setitem__(self, name: str, value: Any) -> None:
            if name.startswith("_"):
                raise jinja2.exceptions.SecurityError(f"namespace: names may not begin with _; got {name!r}")
            super().__setitem__(name, value)

    def raise_exception(message: str) -> None:
        raise jinja2.exceptions.TemplateError(message)

    def strftime_now(form: str) -> str:
        return datetime.now().strftime(form)

    def tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None,
               sort_keys: bool = False) -> str:  # fmt: skip
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals.update(raise_exception=raise_exception, strftime_now=strftime_now, namespace=Namespace)
    environment.globals["dict"] = lambda *pairs, **named: dict(*pairs, **named)
    return environment


if __name__ == "__main__":
    serve()
