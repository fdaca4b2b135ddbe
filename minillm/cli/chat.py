"""``minillm chat``: a conversation with a model, in a terminal or through a pipe."""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .computing import add_threads, computing, on_ctrl_c
from .parameters import add_parameters, chosen_parameters, open_model, reason
from .parser import one_line
from .probabilities import stop_chart, table
from .terminal import say, write
from .values import between, name_of_something, not_one_of

if TYPE_CHECKING:
    from ..chat import Conversation
    from ..chat.messages import Messages
    from ..training.compile_notice import CompileNotice

LONGEST_ANSWER = 1024  # tokens, unless --max-new-tokens says otherwise
ALTERNATIVES = 5  # that /probs shows
LONGEST_LINE = 1_000_000  # characters
QUOTES = '"""'


def add(commands: Any) -> None:
    """Teach the command line this command."""
    p = commands.add_parser(
        "chat",
        allow_abbrev=False,  # --n would be --no-repeat-ngram-size
        help="talk with a model",
        description="Talk with a chat model. In a terminal: a line is a message; one that ends with a backslash goes "
        f"on in the next, and {QUOTES} begins and ends a message of many lines; Ctrl-C ends an answer, Ctrl-D leaves; "
        "/help shows what else there is. Through a pipe: each line is a message or a command, the answers are written, "
        "and the first line that is refused ends it, with exit code 2.",
    )
    p.add_argument("folder", metavar="RUN", help="a run folder, any folder in Hugging Face's layout, or a GGUF file")
    p.add_argument("--system", metavar="TEXT", help="a message that says how to answer; /system changes it")
    p.add_argument("--load", type=name_of_something, metavar="FILE", help="go on with a conversation that /save wrote")
    add_parameters(p, without=("--n", "--beams", "--logprobs"))
    add_threads(p)
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from ..chat import Conversation
    from ..files import shell_path

    if sys.stdin is None:
        raise ValueError("there is no standard input to read messages from")
    if options.system is not None and options.load is not None:
        raise ValueError("--system and --load both say how the conversation begins: leave one of them out")
    changes = {"max_new_tokens": LONGEST_ANSWER, "logprobs": ALTERNATIVES} | chosen_parameters(options)
    with computing(options) as notice:
        model, tokenizer, config = open_model(options, changes)
        if tokenizer.chat_format is None:
            raise ValueError(
                f"{options.folder} has no chat template: it continues texts, and was not made for conversations; "
                f"teach it with: minillm sft {shell_path(options.folder)}"
            )
        talk = Conversation(model, tokenizer, config)
        if options.load is not None:
            talk.load(options.load)
        elif options.system:
            talk.begin([{"role": "system", "content": options.system}])
        person = sys.stdin.isatty()
        if person:
            say(f"[talking with {Path(options.folder).name}; /help shows what can be typed, Ctrl-D leaves]")
        session = Session(talk, notice, person)
        session.answer_what_waits()
        session.run()
    return 0


class Session:
    """A conversation, as it is typed and shown. person: whether somebody types it at a terminal."""

    def __init__(self, talk: Conversation, notice: CompileNotice, person: bool) -> None:
        self.talk, self.notice, self.person = talk, notice, person
        self.took: tuple[float, float] | None = None  # seconds to the first piece of the last answer, and to its end
        self.files: set[Path] = set()  # that this conversation may write again

    def run(self) -> None:
        """Answer until there is nothing more."""
        line = line_reader(self.person)
        while True:
            try:
                text, quoted = read_message(line)
                if text.startswith("/") and not quoted:
                    self.command(*text.split(maxsplit=1))
                elif text.strip():
                    self.answer([*self.talk.messages, {"role": "user", "content": text}])
            except EOFError:
                return
            except KeyboardInterrupt:
                if not self.person:
                    raise
                say("\n[Ctrl-D or /quit leaves]")
            except (ValueError, OSError, FloatingPointError) as error:
                if not self.person:  # nobody could type it anew
                    raise
                say(f"[{one_line(error)}]")

    def answer_what_waits(self) -> None:
        """A conversation that ends with a question gets its answer before anything else is said."""
        said = self.talk.messages
        if said and said[-1]["role"] == "user":
            say("[the last message waits for an answer:]")
            self.answer(said)

    def answer(self, messages: Messages) -> None:
        """Let the model answer, and show that while it is written."""
        talk, forgotten, ended = self.talk, self.talk.forgotten, threading.Event()

        def end(*_: Any) -> None:
            if ended.is_set():  # a second time: also where a token takes long
                raise KeyboardInterrupt
            ended.set()

        last, begun, first = talk.last, time.perf_counter(), 0.0
        with on_ctrl_c(end) if self.person else contextlib.nullcontext():
            try:
                with contextlib.closing(talk.answer(messages, ended)) as pieces:
                    for piece in pieces:
                        first = first or time.perf_counter() - begun
                        write(piece)
            except KeyboardInterrupt:
                if not self.person:
                    raise
        if talk.last is last:
            say("\n[ended before the first word: the message is forgotten]")
            return
        print(flush=True)
        self.took = first, time.perf_counter() - begun
        self.notice.finish()
        if talk.forgotten > forgotten:
            say(f"[the context is full: the model no longer sees the first {talk.forgotten} messages]")
        if talk.last is not None and talk.last.finish_reason not in ("end_of_turn", "eos"):
            say(f"[{reason(talk.last)}, after {len(talk.last.ids):,} tokens]")

    # ---- commands --------------------------------------------------------------------------------

    def command(self, name: str, rest: str = "") -> None:
        """Do what a line that begins with a slash says."""
        if name not in COMMANDS:
            raise ValueError(
                f"{not_one_of(COMMANDS, name).replace('must', 'a command must')} "
                f"(a message that begins with a slash stands between {QUOTES})"
            )
        takes, do, _ = COMMANDS[name]
        if rest.strip() and not takes:
            raise ValueError(f"{name} takes nothing after it; got {rest.strip()!r}")
        do(self, rest.strip())

    def system(self, text: str) -> None:
        """Another system message, or none."""
        rest = self.talk.messages[len(self.talk.instructions) :]
        self.talk.begin([*([{"role": "system", "content": text}] if text else []), *rest])
        say("[so it is from now on]" if text else "[no system message]")

    def temperature(self, text: str) -> None:
        """How varied the answers are."""
        if text:
            try:
                self.talk.config = self.talk.config.replace(temperature=between(0, 100)(text))
            except argparse.ArgumentTypeError as error:
                raise ValueError(f"/temperature {error}") from None
        say(f"[temperature {self.talk.config.temperature:g}]")

    def reset(self, _: str) -> None:
        """Forget what was said, but for the system message."""
        self.talk.begin(self.talk.instructions)
        say("[begun anew]")

    def save(self, text: str) -> None:
        """Write the conversation into a file."""
        path = _file("/save", text)
        if path.exists() and path not in self.files:
            raise ValueError(f"{path} exists already, and nothing is overwritten: choose another name")
        self.talk.save(path)
        self.files.add(path)
        say(f"[{len(self.talk.messages)} messages are in {path}]")

    def load(self, text: str) -> None:
        """Go on with the conversation of a file."""
        path = _file("/load", text)
        self.talk.load(path)
        self.files.add(path)
        said = self.talk.messages
        waits = bool(said) and said[-1]["role"] == "user"
        say(f"[{len(said)} messages{', and now yours' * (not waits)}]")
        self.answer_what_waits()

    def why(self, _: str) -> None:
        """Why the last answer stopped."""
        last = self._last()
        print(f"{reason(last)}, after {len(last.ids):,} tokens")
        if self.took is not None:
            first, all_of_it = self.took
            read = len(last.prompt_ids) - self.talk.reused
            speed = (len(last.ids) - 1) / max(all_of_it - first, 1e-9)
            told = f"the first after {first:.2f} s ({read:,} tokens read, {self.talk.reused:,} known), then "
            print(f"{told}{speed:,.0f} a second")
        print("\nthe probability that it stops, before each token:\n")
        print(stop_chart(last.stop_probs, last.ids, self.talk.tokenizer), flush=True)

    def probs(self, _: str) -> None:
        """What else could have stood in the last answer."""
        print(table([self._last()], self.talk.tokenizer), flush=True)

    def help(self, _: str) -> None:
        """What can be typed."""
        print("\n".join(f"{name + ' ' + COMMANDS[name][0]:20} {COMMANDS[name][2]}" for name in COMMANDS))
        print(f"\nA line that ends with \\ goes on in the next; {QUOTES} begins and ends a message of many lines.")
        print("Ctrl-C ends an answer, Ctrl-D leaves.", flush=True)

    def quit(self, _: str) -> None:
        """Leave."""
        raise EOFError

    def _last(self) -> Any:
        if self.talk.last is None or not self.talk.last.ids:
            raise ValueError("there is no answer yet")
        return self.talk.last


COMMANDS: dict[str, tuple[str, Callable[[Session, str], None], str]] = {
    "/system": ("TEXT", Session.system, "say how it is to answer; without TEXT: nothing"),
    "/temperature": ("X", Session.temperature, "below 1 bolder, above 1 more varied, 0 the most likely words"),
    "/why": ("", Session.why, "why the last answer stopped, and how likely it was to stop before"),
    "/probs": ("", Session.probs, "how likely each token of the last answer was, and what else could have stood there"),
    "/reset": ("", Session.reset, "begin anew; the system message stays"),
    "/save": ("FILE", Session.save, "write the conversation into a file: a line of JSON, as minillm sft reads them"),
    "/load": ("FILE", Session.load, "go on with a conversation that was saved"),
    "/help": ("", Session.help, "this"),
    "/quit": ("", Session.quit, "leave; so does Ctrl-D"),
}


def _file(command: str, text: str) -> Path:
    if not text:
        raise ValueError(f"{command} needs the name of a file")
    return Path(text).expanduser()


# ---- what is typed -------------------------------------------------------------------------------


def line_reader(person: bool) -> Callable[[str], str]:
    """The function that reads a line, after a prompt if a person types it; it raises EOFError where
    there are no more.

    A terminal's lines can be edited, earlier ones come back, and Tab completes commands, where
    Python has readline.
    """
    if person and sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            import readline

            readline.set_completer(completion)
            readline.set_completer_delims("")  # what is completed is the line
            is_libedit = "libedit" in (readline.__doc__ or "")
            readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")
        return input

    def read(prompt: str) -> str:
        if person:
            print(prompt, end="", file=sys.stderr, flush=True)
        try:
            line = sys.stdin.readline(LONGEST_LINE + 1)
        except UnicodeDecodeError as error:
            raise ValueError(f"standard input is not UTF-8: {error}") from None
        if not line:
            raise EOFError
        if len(line) > LONGEST_LINE:
            raise ValueError(f"a line may have {LONGEST_LINE:,} characters")
        return line.removesuffix("\n")

    return read


def completion(beginning: str, number: int) -> str | None:
    """The command of this number that begins so, as readline asks for it; None: there is none.

    >>> completion("/s", 0), completion("/s", 1), completion("/s", 2), completion("s", 0)
    ('/system ', '/save ', None, None)
    """
    found = [f"{name} " if COMMANDS[name][0] else name for name in COMMANDS if name.startswith(beginning)]
    return found[number] if beginning.startswith("/") and number < len(found) else None


def read_message(line: Callable[[str], str]) -> tuple[str, bool]:
    r'''A message of one line or several, and whether it stood between """.

    line: shows a prompt and gives the next line, or raises EOFError at the end.

    >>> lines = iter(["first \\", "second", '"""', "a", "", 'b"""'])
    >>> read_message(lambda prompt: next(lines)), read_message(lambda prompt: next(lines))
    (('first \nsecond', False), ('a\n\nb', True))
    '''
    text = _whole(line("> "))
    quoted = text.lstrip().startswith(QUOTES)
    with contextlib.suppress(EOFError):  # what was typed before the end is a message
        if quoted:
            text = text.lstrip().removeprefix(QUOTES)
            while not text.rstrip().endswith(QUOTES):
                text += "\n" + _whole(line(". "))
            text = text.rstrip().removesuffix(QUOTES)
        else:
            while text.endswith("\\"):
                text = text.removesuffix("\\")
                text += "\n" + _whole(line(". "))
    return text.strip("\n") if quoted else text.strip(), quoted


def _whole(text: str) -> str:
    """A line in characters that UTF-8 can hold, whatever the terminal's encoding is."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
