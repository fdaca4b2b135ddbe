"""``minillm chat``: at a terminal, through a pipe, and what is refused."""

import doctest
import importlib.util
import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jinja2")

from minillm import GenerationConfig, chat, generate, models
from minillm.chat import Conversation
from minillm.cli import chat as command
from minillm.cli import main
from minillm.cli.probabilities import stop_chart
from minillm.cli.terminal import harmless
from minillm.tokenizer import BPETokenizer
from minillm.tokenizer.chat_format import ChatFormat

CONFIG = GenerationConfig(temperature=0, max_new_tokens=6, eos_token_id=())
SHORT = ("--max-new-tokens", "6")


@pytest.fixture(scope="module")
def tokenizer():
    made = BPETokenizer.train(["hello there a ball a bat a hat the end of it all why"] * 3, 290,
                              ("<|im_start|>", "<|im_end|>"))  # fmt: skip
    made.chat_format = ChatFormat(chat.CHATML)
    return made


@pytest.fixture(scope="module")
def model(tokenizer):
    config = models.LlamaConfig(tokenizer.vocab_size, 16, 24, 1, 2, 1, max_position_embeddings=4096,
                                bos_token_id=None, eos_token_id=None)  # fmt: skip
    made = models.Llama(config, rng=3).eval()
    for parameter in made.parameters():
        parameter.data = parameter.data * np.float32(3)  # so that its answers are not all alike
    return made


@pytest.fixture(scope="module")
def folder(model, tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path, tokenizer=tokenizer, generation_config=CONFIG)
    return path


def answers(model, tokenizer, *texts, messages=()):
    talk = Conversation(model, tokenizer, CONFIG, messages)
    return ["".join(talk.say(text)) for text in texts]


# ---- through a pipe --------------------------------------------------------------------------------------------------


@pytest.fixture
def pipe(folder, capsys, monkeypatch):
    """Run the command on what stands in a pipe, and give what it wrote on both streams."""

    def run(text, *arguments, code=0, place=folder):
        stdin = io.TextIOWrapper(io.BytesIO(text if isinstance(text, bytes) else text.encode()), "utf-8")
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["chat", str(place), *arguments]) == code
        captured = capsys.readouterr()
        return captured.out, captured.err

    return run


def test_each_line_of_a_pipe_is_a_turn(pipe, model, tokenizer):
    expected = answers(model, tokenizer, "hello", "a ball\nand a bat", "/why is\na text")
    assert len(set(expected)) > 1
    out, err = pipe('hello\n\na ball\\\nand a bat\n"""\n/why is\na text"""\n', *SHORT)
    assert out == "".join(f"{text}\n" for text in expected)
    assert err == "[length: --max-new-tokens was reached, after 6 tokens]\n" * 3
    out, _ = pipe("hello", *SHORT, "--system", "a bat")  # without a line end, and with a system message
    assert out == answers(model, tokenizer, "hello", messages=[{"role": "system", "content": "a bat"}])[0] + "\n"
    assert pipe("") == ("", "")
    assert pipe('"""never ended\n', *SHORT)[0] == answers(model, tokenizer, "never ended")[0] + "\n"
    assert pipe("/quit\nhello") == ("", "")
    assert pipe("hello", "--max-new-tokens", "0")[0] == "\n", "an empty answer is one"


def test_commands(pipe, model, tokenizer, tmp_path):
    file = tmp_path / "talk.json"
    out, err = pipe(f"/system a bat\nhello\n/save {file}\nwhy?\n/save {file}\n/reset\nthere\n", *SHORT)
    system = [{"role": "system", "content": "a bat"}]
    first, second = answers(model, tokenizer, "hello", "why?", messages=system)
    assert out == "".join(f"{text}\n" for text in (first, second, *answers(model, tokenizer, "there", messages=system)))
    assert f"[3 messages are in {file}]" in err and f"[5 messages are in {file}]" in err
    saved = json.loads(file.read_text())["messages"]
    assert file.read_text().count("\n") == 1, "a line of JSONL"
    assert [m["role"] for m in saved] == ["system", *["user", "assistant"] * 2] and saved[4]["content"] == second
    out, err = pipe(f"/load {file}\nthere\n/system\n/temperature\n/temperature 0.5\n", *SHORT)
    assert out == answers(model, tokenizer, "there", messages=saved)[0] + "\n"
    assert re.sub(r"(\[length|compil).*\n", "", err) == (
        "[5 messages, and now yours]\n[no system message]\n[temperature 0]\n[temperature 0.5]\n"
    )
    again, _ = pipe("there\n", *SHORT, "--load", str(file))
    assert again == out
    file.write_text(json.dumps({"messages": saved[:4]}))  # as somebody else may write it: the last message waits
    for typed, options in (("there\n", ("--load", str(file))), (f"/load {file}\nthere\n", ())):
        out, err = pipe(typed, *SHORT, *options)
        talk = Conversation(model, tokenizer, CONFIG)
        waited = "".join(talk.answer(saved[:4]))
        assert waited == second and out == f"{waited}\n{''.join(talk.say('there'))}\n"
        assert "[the last message waits for an answer:]" in err and "now yours" not in err
    out, _ = pipe("/help\n")
    assert [line.split()[0] for line in out.splitlines() if line.startswith("/")] == list(command.COMMANDS)
    sampled = [pipe("hello\n", *SHORT, "--temperature", "3", "--seed", seed)[0] for seed in "112"]
    assert sampled[0] == sampled[1] != sampled[2]


def test_why_and_probs_speak_of_the_last_answer(pipe, model, tokenizer):
    talk = Conversation(model, tokenizer, CONFIG.replace(logprobs=5))
    first, second = ("".join(talk.say(text)) for text in ("hello", "why?"))
    last = generate(model, tokenizer, chat.prompt(talk.messages[:-1], tokenizer), talk.config)
    out, _ = pipe("hello\nwhy?\n/why\n/probs\n", *SHORT)
    out = out.removeprefix(f"{first}\n{second}\n")
    assert out.startswith("length: --max-new-tokens was reached, after 6 tokens\nthe first after ")
    read = len(last.prompt_ids) - talk.reused
    assert talk.reused >= 20 and f" s ({read} tokens read, {talk.reused} known), then " in out
    assert stop_chart(last.stop_probs, last.ids, tokenizer) in out
    alternatives = [line for line in out.splitlines() if "   instead: " in line]
    assert len(alternatives) == 6 and f"{100 * np.exp(last.logprobs[-1]):7.2f} %" in alternatives[-1]


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("hello\n/temprature 1\n", "a command must be one of .*; got '/temprature'; did you mean /temperature\\?"),
        ("/temperature hot\n", "/temperature must be a number; got 'hot'"),
        ("/temperature 1e-9\n", "temperature must be 0 .* or at least 1e-06; got 1e-09"),
        ("/why\n", "there is no answer yet"),
        ("/probs\n", "there is no answer yet"),
        ("/probs 3\n", "/probs takes nothing after it; got '3'"),
        ("/save\n", "/save needs the name of a file"),
        ("/load\n", "/load needs the name of a file"),
        ("/load /no/such/file\n", "/no/such/file: No such file"),
        ("a bat " * 4096, "the message makes [\\d,]+ tokens, .* context is 4,096: shorten it"),
        ("a" * 1_000_001, "a line may have 1,000,000 characters"),
        (b"caf\xe9\n", "standard input is not UTF-8"),
    ],
)
def test_a_mistake_in_a_pipe_ends_it(pipe, text, complaint):
    _, err = pipe(text, *SHORT, code=2)
    line = err.splitlines()[-1]
    assert line.startswith("minillm: ") and re.search(complaint, line)


@pytest.mark.parametrize(
    "content, complaint",
    [
        ("hello", "not valid JSON"),
        ("[]", "expected a JSON object"),
        (
            '{"messages": [], "more": 1}',
            r"expected \{\"messages\": \[\.\.\.\]\} alone; got the entries",
        ),
        (
            '{"messages": [{"role": "usr", "content": "x"}]}',
            r"talk.json: messages\[0\]: role must be one of",
        ),
        ('{"messages": "hello"}', "talk.json: messages must be a list"),
        ('{"messages": ""}', "talk.json: messages must be a list"),
        ('{"messages": [{"role": "user", "content": NaN}]}', "NaN is no JSON number"),
    ],
)
def test_a_file_that_is_no_conversation(pipe, tmp_path, content, complaint):
    (tmp_path / "talk.json").write_text(content)
    _, err = pipe(f"/load {tmp_path / 'talk.json'}\n", code=2)
    assert err.count("\n") == 1 and re.search(complaint, err)
    _, err = pipe(f"/save {tmp_path / 'talk.json'}\n", code=2)
    assert "exists already, and nothing is overwritten" in err
    assert (tmp_path / "talk.json").read_text() == content


def test_what_cannot_begin(pipe, model, tokenizer, tmp_path, monkeypatch, capsys):
    plain = BPETokenizer.train(["hello there"] * 3, tokenizer.vocab_size)
    model.save_pretrained(tmp_path / "base", tokenizer=plain)
    _, err = pipe("hello\n", code=2, place=tmp_path / "base")
    assert err.count("\n") == 1 and "has no chat template: it continues texts" in err
    assert err.endswith(f"teach it with: minillm sft {tmp_path / 'base'}\n")
    assert "no such run folder" in pipe("hello\n", code=2, place=tmp_path / "nowhere")[1]
    assert "--system and --load" in pipe("", "--system", "x", "--load", "y", code=2)[1]
    assert "--max-new-tokens must be at least 0" in pipe("", "--max-new-tokens", "-1", code=2)[1]
    assert "--min-new-tokens must be at most --max-new-tokens" in pipe(
        "", "--min-new-tokens", "9", "--max-new-tokens", "3", code=2)[1]  # fmt: skip
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["chat", str(tmp_path / "base")]) == 2
    assert capsys.readouterr().err == "minillm: there is no standard input to read messages from\n"
    refuses = BPETokenizer.train(["hello there"] * 3, tokenizer.vocab_size)
    refuses.chat_format = ChatFormat(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No system here') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    model.save_pretrained(tmp_path / "refuses", tokenizer=refuses)
    _, err = pipe("hello\n", "--system", "x", code=2, place=tmp_path / "refuses")
    assert err == "minillm: messages[0]: the chat template failed: No system here\n"


def test_forgotten_turns_are_said(pipe, tokenizer, tmp_path):
    config = models.LlamaConfig(tokenizer.vocab_size, 16, 24, 1, 2, 1, max_position_embeddings=128,
                                bos_token_id=None, eos_token_id=None)  # fmt: skip
    models.Llama(config, rng=3).save_pretrained(tmp_path / "small", tokenizer=tokenizer, generation_config=CONFIG)
    _, err = pipe("hello there\n" * 5, "--max-new-tokens", "2", place=tmp_path / "small")
    assert "[the context is full: the model no longer sees the first 6 messages]" in err


# ---- at a terminal ---------------------------------------------------------------------------------------------------


class Terminal:
    """A command behind a pseudo-terminal, and somebody who types."""

    def __init__(self, *arguments):
        import pty

        self.fd, child = pty.openpty()
        environment = os.environ | {"MINILLM_KERNELS": "numpy", "TERM": "dumb", "COLUMNS": "100", "INPUTRC": os.devnull}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "minillm.cli", *arguments], stdin=child, stdout=child, stderr=child,
            env=environment, start_new_session=True, preexec_fn=take_terminal,
        )  # fmt: skip
        os.close(child)

    def until(self, pattern):
        """What is shown up to where it ends in a pattern."""
        shown, end = b"", time.monotonic() + 60
        while not re.search(pattern.encode() + rb"\Z", shown):
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            assert ready, f"waited for {pattern!r}; shown was {shown!r}"
            try:
                shown += os.read(self.fd, 1 << 16)
            except OSError:  # it has ended
                break
        return shown.decode("utf-8", "replace").replace("\r\n", "\n")

    def type(self, text, pattern="\n> "):
        """Type a text, and give what is shown until the next prompt."""
        os.write(self.fd, text.encode())
        return self.until(pattern)

    def interrupt(self):
        """Press Ctrl-C at a prompt, once its line is being read: Python loses one that comes a moment earlier."""
        state = Path(f"/proc/{self.process.pid}/stat")
        while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "S":
            time.sleep(0.001)
        return self.type("\x03")

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.fd)


def take_terminal():
    """Make the terminal that of the process, so that Ctrl-C reaches it."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal():
    pytest.importorskip("pty")
    opened = []

    def run(*arguments):
        opened.append(Terminal(*arguments))
        return opened[-1]

    yield run
    for one in opened:
        one.close()


def test_a_conversation_at_a_terminal(terminal, folder, model, tokenizer, tmp_path):
    session = terminal("chat", str(folder), *SHORT)
    assert f"[talking with {folder.name}; /help shows" in session.until("> ")
    edited = importlib.util.find_spec("readline") is not None
    expected = answers(model, tokenizer, "hello", "a\nbat", "/b\n\nc")
    shown = session.type("ello\x01h\r" if edited else "hello\r")  # Ctrl-A goes to the beginning of the line
    assert f"\n{harmless(expected[0])}\n[length: " in shown
    assert session.type("a\\\r", r"\. ").endswith("\n. ")
    assert f"\n{harmless(expected[1])}\n" in session.type("bat\r")
    session.type('"""/b\r', r"\. ")
    session.type("\r", r"\. ")
    assert f"\n{harmless(expected[2])}\n" in session.type('c"""\r')
    assert "[a command must be one of" in session.type("/wy\r"), "and the program goes on"
    assert "token 1 to 6" in session.type("/why\r") and "instead: " in session.type("/probs\r")
    assert "[7 messages" not in session.type(f"/save {tmp_path / 'talk.json'}\r")
    saved = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert [m["content"] for m in saved[::2]] == ["hello", "a\nbat", "/b\n\nc"]
    assert [m["content"] for m in saved[1::2]] == expected
    if edited:
        assert "[temperature 0.5]" in session.type("/te\t0.5\r"), "Tab completes a command"
        earlier = "\x1b[A" if os.environ.get("TERM") else "\x10"
        assert f"/save {tmp_path / 'talk.json'}" in session.type(f"{earlier}{earlier}\r")
    os.write(session.fd, b"\x04")
    assert session.process.wait(30) == 0


def test_ctrl_c_ends_an_answer_and_not_the_program(terminal, folder, model, tokenizer):
    session = terminal("chat", str(folder), "--max-new-tokens", "4000")
    session.until("> ")
    session.type("hello\r", "(?s)hello\r\n.{9,}")
    shown = session.type("\x03")
    assert "[cancelled: " in shown and "Traceback" not in shown
    session.type("why?\r", r"(?s)why\?\r\n.{9,}")
    session.type("\x03")
    assert re.search(r"cancelled: Ctrl-C ended it, after .*\n.*, [1-9]\d* known", session.type("/why\r")), (
        "what was read is kept"
    )
    assert "[Ctrl-D or /quit leaves]" in session.interrupt(), "at the prompt it says how to leave"
    session.type('"""half a message\r', r"\. ")
    session.interrupt()
    assert session.type("/temperature 0\r").endswith("[temperature 0]\n> "), "the half message is gone"
    os.write(session.fd, b"/quit\r")
    assert session.process.wait(30) == 0


def test_ctrl_c_while_a_model_is_opened(folder):
    code = (
        "import os, signal, sys; from minillm.training import run; from minillm.cli import main;"
        "run.load_run = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT) or __import__('time').sleep(9);"
        f"sys.exit(main(['chat', {str(folder)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], input="", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "minillm: interrupted\n")


def test_ctrl_c_ends_a_pipe(folder):
    child = subprocess.Popen(
        [sys.executable, "-m", "minillm.cli", "chat", str(folder), "--max-new-tokens", "4000"], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"MINILLM_KERNELS": "numpy"},
    )  # fmt: skip
    child.stdin.write("hello\n")
    child.stdin.flush()
    assert child.stdout.read(5)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (130, "minillm: interrupted\n")


def test_what_a_model_writes_cannot_command_a_terminal():
    assert harmless("a\x1b[2Jb\r\nc\td\x9b1m\x07é") == "a[2Jb\nc\td1mé"


def test_docstring_examples():
    assert doctest.testmod(command).failed == 0 < doctest.testmod(command).attempted
