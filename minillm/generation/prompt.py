"""From a prompt to a model that has read it: ids, a padded batch, a filled cache, the first scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .config import GenerationConfig
from .processors import log_sum_exp

if TYPE_CHECKING:
    from ..models import LanguageModel
    from ..models.base import Cache
    from ..tokenizer import StreamDecoder, Tokenizer

__all__ = ["Prompt", "pad", "read_batch", "read_prompt", "score_prompt", "stream_decoder", "top_logprobs"]


@dataclass
class Prompt:
    """A prompt as the model gets it, and, once it was read with echo, how likely the model found
    each token.
    """

    text: str
    ids: list[int]  # what the model, or its decoder, reads first: P
    encoder_ids: list[int] | None = None  # what the encoder reads, where there is one
    logprobs: list[float | None] = field(default_factory=list)  # P; None for the first, which nothing scores
    top_logprobs: list[dict[int, float] | None] = field(default_factory=list)


def read_prompt(
    caller: str,
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    config: GenerationConfig,
) -> Prompt:
    """Turn a prompt into ids.

    A string is encoded as ordinary text: a special token written in it is no special token, unless
    config.special says so. What goes before it is what went before the texts of the training, and
    the tokenizer knows that from its folder: see `_beginning`. Ids are taken as they are. An empty
    prompt is the beginning of a text alone.

    Raises ValueError for ids outside the vocabulary, for an empty prompt where nothing marks the
    beginning of a text, and, unless config.slide is on, for a prompt longer than the model's
    context.
    """
    if isinstance(prompt, str):
        plain, text = tokenizer.encode(prompt), prompt
        ids = tokenizer.encode(prompt, "all") if config.special else plain
    else:
        ids = _checked(caller, prompt, tokenizer.vocab_size)
        text = tokenizer.decode(ids)
    if getattr(model, "is_encoder_decoder", False):
        made = Prompt(text, [_decoder_start(caller, model, config)], ids)
        if not ids:
            raise ValueError(f"{caller}: the prompt of an encoder-decoder model must not be empty")
        if config.echo:
            raise ValueError(f"{caller}: echo: an encoder-decoder model gives its prompt no probabilities")
    else:
        if isinstance(prompt, str) and plain[-1:] == [tokenizer.eos_id]:
            ids = ids[:-1]  # some tokenizers end every text that they encode; a prompt goes on
        beginning, before_prompts = _beginning(tokenizer, config)
        wanted = not ids or (isinstance(prompt, str) and before_prompts and ids[0] != beginning)
        if wanted and beginning is not None:
            ids = [beginning, *ids]
        elif not ids:
            raise ValueError(f"{caller}: the prompt is empty, and there is no bos_token_id to begin a text with")
        made = Prompt(text, ids)
    context = model.context
    if context is not None and len(ids) > context and (config.echo or not config.slide):
        raise ValueError(
            f"{caller}: the prompt has {len(ids)} tokens, more than the model's context of {context}; "
            "slide=True reads the end of it"
        )
    return made


def _beginning(tokenizer: Tokenizer, config: GenerationConfig) -> tuple[int | None, bool]:
    """The token that begins a text, and whether it goes before a prompt that is a string.

    Where the configuration names the token, config.add_bos says whether; else the tokenizer does,
    whose folder says it: in its template, which has put it there by now, or, in an old run folder,
    in ``add_bos``. One that comes from no folder puts its end-of-text token there, as
    `DocumentDataset` does. (A stand-in for a tokenizer may know nothing of it.)
    """
    if config.bos_token_id is not None:
        return config.bos_token_id, config.add_bos
    known = getattr(tokenizer, "bos_id", None)
    beginning = tokenizer.eos_id if known is None else known
    return beginning, config.add_bos and getattr(tokenizer, "begins_prompts", True)


def _checked(caller: str, prompt: Sequence[int], vocab_size: int) -> list[int]:
    ids = np.asarray(prompt)
    if ids.size == 0:
        return []
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise ValueError(f"{caller}: prompt must be a string or a list of ids; got shape {ids.shape} of {ids.dtype}")
    if ids.min() < 0 or ids.max() >= vocab_size:
        worst = ids.min() if ids.min() < 0 else ids.max()
        raise ValueError(f"{caller}: prompt must have ids in [0, {vocab_size}); got {worst}")
    return ids.tolist()


def _decoder_start(caller: str, model: LanguageModel, config: GenerationConfig) -> int:
    """The first token of the decoder: the generation configuration's, else the model
    configuration's.
    """
    places = (config, getattr(model, "config", None))
    found = [id for place in places if (id := getattr(place, "decoder_start_token_id", None)) is not None]
    if not found:
        raise ValueError(f"{caller}: an encoder-decoder model needs decoder_start_token_id in the configuration")
    return found[0]


def stream_decoder(tokenizer: Tokenizer, prompt: Prompt) -> StreamDecoder:
    """A decoder for what follows the prompt.

    The prompt may end within a character, and where words begin with a space only the first word of
    a text loses it: so the decoder must have seen the end of the prompt.
    """
    decoder = tokenizer.stream_decoder()
    if prompt.encoder_ids is None:
        special = set(tokenizer.special_tokens.values())
        for id in prompt.ids[-4:]:  # a character has at most four bytes
            if id not in special:
                decoder.push(id)
    return decoder


def pad(texts: Sequence[Sequence[int]], filler: int) -> np.ndarray:
    """Texts of different lengths as the rows of one array (B, T); the shorter ones are filled up on
    the left.
    """
    longest = max(map(len, texts))
    return np.array([[filler] * (longest - len(text)) + list(text) for text in texts], np.int64)


def read_batch(
    model: LanguageModel, prompts: Sequence[Prompt], room: int, pad_id: int, alternatives: int | None = None
) -> tuple[np.ndarray, Cache]:
    """Let the model read prompts of different lengths in one batch, and score the next token of
    each: (B, V), cache.

    room: how many more tokens each text may get. Shorter prompts are padded on the left, so that
    all end in the same column; the padding is masked, and positions count from where a text begins.
    alternatives: unless None, note in each prompt the log-probabilities of its tokens, and of so
    many others in their places.
    """
    ids = pad([prompt.ids for prompt in prompts], pad_id)  # (B, T)
    padding = np.array([ids.shape[1] - len(prompt.ids) for prompt in prompts])  # (B,)
    length = ids.shape[1] + room
    if model.context is not None:
        length = min(length, model.context)
    beginning: dict[str, Any] = {"starts": padding if padding.any() else None}
    if prompts[0].encoder_ids is not None:
        beginning = {"encoder_ids": pad([prompt.encoder_ids or [] for prompt in prompts], pad_id)}
    cache = model.new_cache(len(prompts), length, **beginning)
    if alternatives is None:
        return model.next_logits(ids, cache), cache
    from ..tensor import no_grad

    with no_grad():
        logits = model(ids, cache=cache).data  # (B, T, V)
    for prompt, width, scores in zip(prompts, padding, logits, strict=True):
        prompt.logprobs, prompt.top_logprobs = score_prompt(scores[width:], prompt.ids, alternatives)
    return logits[:, -1], cache


# ---- log-probabilities ----


def top_logprobs(logits: np.ndarray, normalizer: float, count: int) -> dict[int, float]:
    """The ``count`` most likely tokens, best first, with their log-probabilities: (V,) -> {id:
    nats}.
    """
    rest = len(logits) - min(count, len(logits))
    best = np.argpartition(logits, rest)[rest:] if rest else np.arange(len(logits))
    best = best[(-logits[best]).argsort(kind="stable")]
    return {int(id): float(logits[id]) - normalizer for id in best}


def score_prompt(
    logits: np.ndarray, ids: Sequence[int], alternatives: int
) -> tuple[list[float | None], list[dict[int, float] | None]]:
    """The log-probability of each token of a prompt, and the likeliest tokens in its place: (P, V),
    P ids.

    The logits at one position score the token at the next; so nothing scores the first.
    """
    logprobs: list[float | None] = [None]
    tops: list[dict[int, float] | None] = [None]
    for scores, normalizer, id in zip(logits, log_sum_exp(logits).tolist(), ids[1:], strict=False):
        logprobs.append(float(scores[id]) - normalizer)
        if alternatives:
            tops.append(top_logprobs(scores, normalizer, alternatives))
    return logprobs, tops if alternatives else []
