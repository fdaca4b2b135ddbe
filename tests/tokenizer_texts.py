"""Texts that are hard on tokenizers, and the comparison with a tokenizer of the `tokenizers` library."""

import numpy as np
from hypothesis import strategies as st

SAMPLES = [
    "Hello, World! it's we'll I'M 'tis   3.14159 1234567  x\n\n y\t\tz \r\n",
    "naïve café déjà Ångström ﬁ ½ Ⅷ ² don'ſ can'T 're'VE",
    "日本語のテキスト 中文字符 한국어",
    "مرحبا بالعالم שלום",
    "👩\u200d👩\u200d👧 🇫🇷 👍🏽 e\u0301 n\u0303 \u200d\u200b\ufeff",
    "a\u0300\u0301\u0302b \x00\x01\x1f\x7f",
    "def f(x):\n    return {'a': x[1:2]}  # note\n",
    "\u3000全角\u00a0space\u2028line",
    "<|endoftext|>",
]
BLOCKS = [
    (0x20, 0x7F), (0xA0, 0x24F), (0x300, 0x36F), (0x391, 0x3A1), (0x400, 0x4FF), (0x5D0, 0x5EA), (0x620, 0x64A),
    (0x900, 0x939), (0x1E00, 0x1EFF), (0x2000, 0x206F), (0x3041, 0x3096), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3),
    (0x1F300, 0x1F5FF), (0x1D400, 0x1D454), (0x9, 0xE), (0x0, 0x1F),
]  # fmt: skip


def strings(n, seed=0):
    """Texts of many kinds: samples cut and mixed, and characters from all over Unicode that have long been there."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        if rng.random() < 0.5:
            low, high = rng.integers(0, 60, 2)
            a, b = (SAMPLES[i] for i in rng.integers(0, len(SAMPLES), 2))
            yield a[low % len(a) :] + " " * int(rng.integers(0, 3)) + b[: high % len(b)]
        else:
            chosen = [BLOCKS[i] for i in rng.integers(0, len(BLOCKS), 3)]
            picks = [chosen[i] for i in rng.integers(0, 3, rng.integers(0, 30))]
            yield "".join(chr(rng.integers(low, high + 1)) for low, high in picks)


ODD = [
    "", " ", "<extra_id_0> a <extra_id_1>b</s>", "  a   b ", "▁▁x▁y ▁", "ﬁ ｆｕｌｌ ½ ①", "\r\n x\ty", "ゔ e\u0301",
    "\u0344",
]  # fmt: skip


# Any text that Python knows characters for, lone surrogates and line ends of all kinds among them.
anything = st.lists(
    st.text(st.characters(exclude_categories=["Cn"]), max_size=20)
    | st.sampled_from([*SAMPLES, "\r\n", "\n", "\r", "\x85", "\u2028", "\ud800", "\udfff", "\ud83d\udc08", "  ", "'s"]),
    max_size=6,
).map("".join)


def agree(ours, theirs, texts):
    for text in texts:
        expected = theirs.encode(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
        ids, offsets = ours.encode_with_offsets(text, allowed_special="all")
        assert ids == expected.ids == ours.encode(text, allowed_special="all"), text
        assert offsets == expected.offsets, text
        assert ours.decode(ids) == theirs.decode(expected.ids, skip_special_tokens=False), text
