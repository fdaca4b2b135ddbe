"""Arrays in, arrays out: the hot loops of the library, each a NumPy twin and a Numba kernel.

The rooms, one family of functions each: ``matmul``, ``activations``, ``mlp``, ``softmax``, ``norm``, ``attention``,
``recurrent``, ``embedding``, ``decode``, ``quant``, ``optim``, ``bpe``. A room is loaded, and Numba imported, when one
of its names is first used: ``import minillm`` stays quick and compiles nothing.

What made it fast, in the order it was found
--------------------------------------------
The figures are of two cores, each from the day it was found, and machines differ: read the ratios, and take today's
from ``python -m benchmarks``. A baby GPT is one of 0.8 million parameters on 768 tokens; its step in plain NumPy
(``MINILLM_KERNELS=numpy``) takes about ten times as long as with all that follows.

1.  *One pool of threads* (``matmul``). NumPy's product wakes BLAS's threads, the loop behind it Numba's, and each pool
    waits in a loop on the cores that the other wants. A product of 0.7 ms and a gelu of 0.4 took 8.0 ms together.
    BLAS called from inside Numba's loops, each thread its rows: 0.95.
2.  *Exponentials that vectorise* (``_jit``). The C library takes one number at a time: 4.1 ns. A polynomial of degree
    7 and a shift of the exponent's bits are arithmetic, which LLVM does for 8 or 16 numbers at once: 0.2 to 0.3 ns.
3.  *One pass over memory* (``softmax``, ``norm``, ``activations``). NumPy writes each intermediate result to memory and
    reads it back. A loop that takes a row through all of them reads once and writes once: rms norm, of which torch has
    no kernel of its own, 17 times as fast as torch; gelu 4 times.
4.  *Memory that is kept* (``_jit``). The system zeroes each page of a fresh array at its first touch. Freed blocks that
    stay with the process, for the same arrays in the next step: a step of a baby GPT 48.5 -> 45.8 ms.
5.  *No matrix of scores* (``attention``). Tile by tile, with a softmax that is corrected as it goes: for 4,096 tokens
    and 8 heads 45 MB instead of the 512 MB of one T x T matrix. Half the tiles lie beyond the causal edge: not
    computed at all.
6.  *Nobody waits inside a sequence* (``recurrent``). Each thread takes some rows of the batch through all time steps,
    and the matrix is put in order once, not at every step: a GRU is 1.9 times as fast as torch's, the cell with
    attention to its past 5 times as fast as the same cell in a loop of torch operations. An LSTM is as fast as torch's:
    both are within a fifth of what the cores can multiply.
7.  *Sums in registers* (``tile``). BLAS must serve all shapes. A tile of 8 x 32 sums that never leave the registers
    while the loop runs along the inner axis reaches nine tenths of what the cores can do at all: products 1.15 times,
    attention 2 times as fast (the list in ``attention_tiles``), the step of a baby GPT 31.7 -> 29.0 ms.
8.  *A token in one call* (``decode``). To write one token every weight is read once, and 200 calls from Python cost
    more than that: a table of all weights' addresses, through which one loop runs, wrote 7,600 tokens a second where
    layer by layer came to 1,300. Weights of one byte are a quarter to read: a Llama of 135 million parameters is 2.9
    times as fast with them.
9.  *No copies for the optimiser* (``optim``). Norm, clipping and AdamW go over the gradients where they lie, by their
    addresses, in blocks: from 0.86 to 2.1 times torch's fused one.
10. *Fewer and smaller programs* (``_jit``). Numba compiles a loop anew for each combination of types (a literal 0
    beside a variable makes a second program), and for each function a way in from Python. Kernels of one signature,
    and helpers that only kernels call: 63 -> 33 s of compilation in a first training with samples.
11. *A prompt in one call* (``decode_prompt``). Each weight is packed once, into a panel in the cache, and all tokens
    are multiplied by it before the next; what follows a product is done while its sums are at hand. 512 tokens of the
    same Llama: from 1.2 to 1.55 times transformers.
12. *What surrounds the kernels.* By now a fifteenth of a baby GPT's step was Python. A product of tiny matrices by the
    shortest way (``ndarray.dot``), a weight used as it is stored instead of a transpose in the graph, and sets of nodes
    instead of tables of their numbers: 28.6 -> 27.6 ms, and 1,000 operations on 4 numbers 5.7 -> 5.0 ms.
13. *One text through a small model* (``decode_products``). A GPT-2 keeps its matrices by columns. For one text, 128
    sums stay in registers while a strip of the matrix runs by (``tile.strip``), instead of eight rows added to sums in
    memory; and up to half a megabyte one thread reads faster than it wakes a second one. A token of a baby GPT:
    82 -> 60 us, and 63 tokens with all Python around them 7.6 -> 6.7 ms.
14. *One fetch for all that needs it* (``matmul.transposed_products``). The gradients of an LSTM's two matrices and of
    its bias all sum over the same dz: laid side by side once for the three, 12.0 -> 10.8 ms.
15. *One start for the three gradients of a layer* (``matmul.linear_backward``). Each thread takes its rows of dx, adds
    up the rows of dy that it has just read, and then takes its part of dW: one start and one wait instead of three.
    Rows added as they lie in memory, four at a time, instead of in columns: 2.5 times as fast. On two cores, large
    products in two parts instead of eight, for each part packs the shared matrix anew: a small GPT's dW 1.1 times as
    fast. With the addresses of 9. taken by a shorter way, the step of a baby GPT on AVX2: 53.3 -> 48.8 ms.
16. *Short rows as vectors* (``attention_tiles``). A loop over the 32 or 64 numbers of a head is all beginning and end.
    Rows copied one vector after another, keys turned over in registers, and tiles that begin at their first value
    instead of being filled with it: attention on AVX2 1.08 times (heads of 32) and 1.15 times (heads of 64) as fast.
    With two gradients that meet added up in the newer array (``autograd.py``), the step of a baby GPT: 51.9 -> 50.4 ms.
17. *A residual stream without arrays of its own* (``matmul.linear_forward``, ``norm``). A block's layer made an array
    that was only added to the stream, and kept until the backward. Now the sums of its last product begin at the
    stream, and the backward of a norm adds what its input has got from elsewhere: 56 -> 52 MB, and the step of a baby
    GPT 1.018 times as fast.
18. *A wide array kept once* (``mlp``). Of h and gelu(h), the largest arrays of a GPT, the backward makes the second
    anew from the exponential that it needs anyhow; and each thread takes its rows through both layers without a stop.
    A quarter of the activations less, a baby GPT's step 1.018 times as fast, a small one's, with 17., 1.04 times.
19. *Python is cold.* Between two kernels, of half a millisecond each, the interpreter's code and objects leave the
    cache: 1 us becomes 5, and the Python of a baby GPT's step was an eighth of it. What helps is less of it: fewer
    operations (17., 18.), and no question asked twice. 1.012 times.

What did not help: tiles for large products with the 16 registers of AVX2 (as fast as BLAS in the cache, slower when the
operands come from farther away), more spinning between two loops (a waiting thread costs the others their turns), four
rows of int8 weights at a time (26 GB/s became 10: memory likes one long stream), fetching an LSTM's gates a step ahead
(2 % of its backward), its backward and its gradients in turns, some steps at a time (half the memory, the same time),
a layer's dW from the rows that the same thread has just read for dx, added up at the end (0 to 2 % slower on AVX2), the
sums of the residual stream by all threads, and threads bound to their cores (nothing, and 2 % slower).
"""

from __future__ import annotations

import importlib
from typing import Any

# fmt: off
_ROOMS = {
    "attention": (
        "attention_backward",
        "attention_forward",
        "attention_packed_backward",
        "attention_packed_forward",
    ),
    "_jit": ("KERNELS", "PAIRS", "get_num_threads", "on_compile", "release_freed_memory", "set_num_threads"),
    "matmul": (
        "joint_linear_backward", "joint_linear_forward", "linear_backward", "linear_forward", "matmul_path", "product",
        "sum_rows",
    ),
    "activations": (
        "gelu_backward", "gelu_forward", "sigmoid_backward", "sigmoid_forward", "silu_backward", "silu_forward",
        "swiglu_backward", "swiglu_forward", "tanh_backward", "tanh_forward",
    ),
    "mlp": ("mlp_backward", "mlp_forward"),
    "softmax": (
        "cross_entropy_backward", "cross_entropy_forward", "log_softmax_backward", "log_softmax_forward",
        "softmax_backward", "softmax_forward",
    ),
    "norm": (
        "layer_norm_backward", "layer_norm_forward", "rms_norm_backward", "rms_norm_forward",
    ),
    "embedding": (
        "embedding_backward", "embedding_forward", "rotary_forward", "rotary_packed_", "rotary_packed_forward",
    ),
    "recurrent": (
        "gru_backward", "gru_forward", "lstm_backward", "lstm_forward", "rnn_backward", "rnn_forward",
    ),
    "additive": ("additive_attention_backward", "additive_attention_forward"),
    "decode": ("MOST_ROWS", "Decoder", "Layer", "Matrix", "Norm", "apply", "decode_step"),
    "decode_prompt": ("FEWEST_TOKENS", "read"),
    "quant": ("dequantize_rows", "quantize_rows"),
    "optim": ("adamw_update", "scale_all", "sgd_update", "sum_of_squares"),
}
# fmt: on
_HOME = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'minillm.kernels' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"minillm.kernels.{_HOME[name]}"), name)
    globals()[name] = value  # the next look-up finds it here
    return value
