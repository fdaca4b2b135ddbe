"""The loop that writes: score the next token, change the scores, draw, append, stop.

    logits = model.next_logits(last token, cache)      the only line in which the model works
    scores = each step of processors.py, in order
    id     = draw(scores)
    row.push(id)                                       decides whether the text ends

A model reads its whole text so far to score the next token. The cache keeps what it has computed
for the tokens before, so that only the new token is read. Several texts are written at once, as the
rows of a batch: a row that is done leaves it, and no row's text depends on the others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..autograd.torch_words import torch_arguments
from ..training.evaluate import evaluating
from .beam import beam_search
from .config import GenerationConfig
from .memory import Memory
from .processors import Penalty, draw, filters, log_sum_exp, most_likely, penalties
from .prompt import Prompt, pad, read_batch, read_prompt, stream_decoder
from .result import Generation, Row, check_finite
from .stopping import Cancel, Criterion, FinishReason, asked, ending

if TYPE_CHECKING:
    from ..models import LanguageModel
    from ..models.base import Cache
    from ..tokenizer import Tokenizer

__all__ = ["generate", "generate_batch", "stream"]


@torch_arguments
def generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    config: GenerationConfig | None = None,
    *,
    rng: np.random.Generator | None = None,
    cancel: Cancel | None = None,
    criterion: Criterion | None = None,
) -> Generation:
    """Continue a prompt until something ends the text, and say what.

    prompt: a string, or ids that are read as they are. rng: where the randomness comes from; None:
    config.seed. cancel: a function or a ``threading.Event`` that is asked before each token.
    criterion: a function of the ids and the text so far that ends the text when it returns True.

    Raises ValueError for a prompt that is longer than the model's context, for config.n above 1
    (``generate_batch`` returns several texts), and when every token is forbidden.
    """
    config = config or GenerationConfig()
    if config.n != 1:
        raise ValueError(f"generate: returns one text; for n = {config.n} call generate_batch with [prompt]")
    return _Writer("generate", model, tokenizer, config, cancel, criterion).texts([prompt], rng)[0]


@torch_arguments
def generate_batch(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[str | Sequence[int]],
    config: GenerationConfig | None = None,
    *,
    rng: np.random.Generator | None = None,
    cancel: Cancel | None = None,
    criterion: Criterion | None = None,
) -> list[Generation]:
    """Continue several prompts at once, each ``config.n`` times: the texts of the first prompt, of
    the second, ...

    Each prompt is read once, however many texts begin with it. The texts are those of ``generate``
    called for one after the other with the same rng.
    """
    if isinstance(prompts, str):
        raise ValueError("generate_batch: prompts must be a list of prompts; got one string")
    writer = _Writer("generate_batch", model, tokenizer, config or GenerationConfig(), cancel, criterion)
    return writer.texts(prompts, rng)


def stream(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    config: GenerationConfig | None = None,
    *,
    rng: np.random.Generator | None = None,
    cancel: Cancel | None = None,
    criterion: Criterion | None = None,
    memory: Memory | None = None,
) -> Iterator[Generation]:
    """Continue a prompt as ``generate`` does, and yield what is new after each token.

    The texts of the pieces joined are the text that ``generate`` returns, and so are ids, logprobs
    and the others. What could be the beginning of a stop string, or of a character of several
    bytes, is held back until it is decided. The last piece has a finish_reason. With config.n above
    1 the pieces of the texts take turns, told apart by ``index``.

    memory: what the model has read before, of which the prompt may be the continuation; it is kept
    up to date. An encoder-decoder model, and a prompt with config.echo, are read from nothing.
    """
    config = config or GenerationConfig()
    if config.num_beams > 1:
        raise ValueError("stream: beam search knows its text only at the end; num_beams must be 1")
    writer = _Writer("stream", model, tokenizer, config, cancel, criterion, memory)
    rows = writer.rows([prompt], rng)
    return (row.take() for row in writer.write(rows))


class _Writer:
    """What one call of generate, generate_batch or stream does."""

    def __init__(
        self,
        caller: str,
        model: LanguageModel,
        tokenizer: Tokenizer,
        config: GenerationConfig,
        cancel: Cancel | None,
        criterion: Criterion | None,
        memory: Memory | None = None,
    ) -> None:
        if tokenizer is None:
            raise ValueError(f"{caller}: tokenizer must be the one that the model was trained with; got None")
        self.caller, self.model, self.tokenizer, self.config = caller, model, tokenizer, config
        self.memory = memory if getattr(model, "reads_on", False) and not config.echo else None
        self.ending = ending(tokenizer, config, criterion)
        self.is_cancelled = asked(cancel)
        # what pads is masked, by an encoder because it is this very token: elsewhere any will do
        self.pad_id = model.config.pad_token_id if getattr(model, "is_encoder_decoder", False) else 0

    def texts(self, prompts: Sequence[str | Sequence[int]], rng: np.random.Generator | None) -> list[Generation]:
        """The n texts of the first prompt, of the second, ..."""
        rows = self.rows(prompts, rng)
        if self.config.num_beams > 1 and self.config.max_new_tokens > 0:
            rows = [row for first in rows[:: self.config.n] for row in self.search(first)]
        elif rows:
            for _ in self.write(rows):
                pass
        return [row.take() for row in rows]

    def rows(self, prompts: Sequence[str | Sequence[int]], rng: np.random.Generator | None) -> list[Row]:
        """An empty row for each text."""
        read = [read_prompt(self.caller, self.model, self.tokenizer, prompt, self.config) for prompt in prompts]
        rng = np.random.default_rng(self.config.seed) if rng is None else rng
        rngs = rng.spawn(len(read) * self.config.n)  # the numbers of row i do not depend on how many rows there are
        return [self.row(read[i // self.config.n], i, rng) for i, rng in enumerate(rngs)]

    def row(self, prompt: Prompt, index: int, rng: np.random.Generator) -> Row:
        """An empty text after a prompt."""
        limit: tuple[int, FinishReason] = self.config.max_new_tokens, "length"
        if self.model.context is not None and not self.config.slide:
            room = self.model.context - len(prompt.ids) + 1  # the last token is drawn by a full context, and not read
            if room < limit[0]:
                limit = room, "context"
        decoder = stream_decoder(self.tokenizer, prompt)
        return Row(index, prompt, decoder, self.ending, limit, self.config.echo, rng)

    def start(self, rows: Sequence[Row]) -> tuple[np.ndarray, Cache, list[Penalty], list[int]]:
        """Read the prompts of some rows: the first scores (B, V), the cache, and for that V
        penalties and stop ids.
        """
        prompts, context = [row.prompt for row in rows], self.model.context
        if context is not None and any(len(prompt.ids) > context for prompt in prompts):  # with config.slide
            prompts = [Prompt("", row.visible(context), row.prompt.encoder_ids) for row in rows]
        alternatives = self.config.logprobs if self.config.echo else None
        with _evaluating(self.model):
            room = self.config.max_new_tokens
            if self.memory is not None:
                logits, cache = self.memory.read(self.model, prompts[0].ids, rows[0].ids, room, self.is_cancelled)
            else:
                logits, cache = read_batch(self.model, prompts, room, self.pad_id, alternatives)
        scored = logits.shape[1]
        stop_ids = [id for id in self.ending.ids if id < scored]
        longest = max(len(row.prompt.ids) for row in rows)
        return logits, cache, penalties(self.config, longest, stop_ids, scored, self.tokenizer.vocab_size), stop_ids

    def search(self, first: Row) -> list[Row]:
        """The n best texts after the prompt of an empty row; fewer, where there are not so many
        texts.
        """

        def new_row(rank: int = 0) -> Row:
            return self.row(first.prompt, first.index + rank, first.rng)

        logits, cache, steps, _ = self.start([first])
        with _evaluating(self.model):
            return beam_search(self.model, logits, cache, self.config, steps, new_row, self.is_cancelled)

    def write(self, rows: list[Row]) -> Iterator[Row]:
        """Write all rows to their ends, and yield each row after each of its tokens."""
        n, alternatives = self.config.n, self.config.logprobs
        logits, cache, look_back, stop_ids = self.start(rows[::n])  # (B / n, V)
        if n > 1:  # the n texts of a prompt begin with the same cache
            samples = np.repeat(np.arange(len(logits)), n)
            logits, cache = logits[samples], cache.reorder(samples)
        choose = most_likely if self.config.temperature == 0 else draw
        look_at_scores = filters(self.config)
        past = pad([row.prompt.ids for row in rows], -1)  # (B, T)

        while rows:
            if self.config.max_new_tokens == 0 or self.is_cancelled():
                for row in rows:
                    row.finish("length" if self.config.max_new_tokens == 0 else "cancelled")
                    yield row
                return
            normalizers = log_sum_exp(logits).tolist()
            check_finite(normalizers, len(rows[0].trace.logprobs))
            scores = logits  # (B, V)
            for penalize in look_back:
                scores = penalize(scores, past)
            for keep in look_at_scores:
                scores = keep(scores)
            ids = choose(scores, [row.rng for row in rows])  # (B,)
            if look_back:
                past = np.concatenate([past, ids[:, None]], axis=1)

            for row, row_logits, id, normalizer in zip(rows, logits, ids.tolist(), normalizers, strict=True):
                row.trace.add(id, row_logits, normalizer, stop_ids, alternatives)
                row.push(id)
                yield row

            going = [i for i, row in enumerate(rows) if row.finish_reason is None]
            if 0 < len(going) < len(rows):
                ids, past, cache = ids[going], past[going], cache.reorder(np.array(going))
            rows = [rows[i] for i in going]
            if rows and cache.length == self.model.context:
                logits, cache = self.read_again(rows, cache.length)
            elif rows:
                with _evaluating(self.model):
                    logits = self.model.next_logits(ids[:, None], cache)

    def read_again(self, rows: list[Row], context: int) -> tuple[np.ndarray, Cache]:
        """Make room in a full cache, by reading what the rows hold into a new one.

        There may be room because the rows that are left need less padding. A row that fills the
        context by itself (with config.slide) forgets its older half.
        """
        prompts = [Prompt("", row.visible(context), row.prompt.encoder_ids) for row in rows]
        with _evaluating(self.model):
            return read_batch(self.model, prompts, context, self.pad_id)


@contextlib.contextmanager
def _evaluating(model: LanguageModel) -> Iterator[None]:
    """Without dropout, also in the middle of training.

    Only while the model works: between two tokens of a stream anything may happen, in any thread.
    """
    with evaluating(model) if model.training else contextlib.nullcontext(), np.errstate(under="ignore"):
        yield
