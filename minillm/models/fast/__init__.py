"""Writing quickly: nothing here changes what a model computes.

``arrays`` lists a GPT-2's or a Llama's arrays for the compiled loops, ``decoding`` reads the next
tokens with them, and ``int8`` holds the weights in one byte each.
"""
