"""From a language model to one that answers: roles, templates, loss masks, supervised fine-tuning.

Read ``messages`` (what a conversation is), ``template`` (how it is written), ``encode`` (its ids,
and which of them the model learns), ``conversation`` (how one goes on), then ``sandbox`` (where
templates run).

    from minillm import chat, load_run

    model, tokenizer, settings = load_run("runs/chat")
    talk = chat.Conversation(model, tokenizer, settings)
    print(*talk.say("Hello!"), sep="")
"""

from .conversation import Conversation
from .encode import Encoded, encode, prompt
from .messages import ROLES, Message, Messages
from .template import CHATML, render

__all__ = ["CHATML", "ROLES", "Conversation", "Encoded", "Message", "Messages", "encode", "prompt", "render"]
