"""Chat templates in the forms of the families that people use, and conversations to write with them.

The marks, the order and the white space are those of the published models; the programs are written anew and short.
"""

# ruff: noqa: E501

import random

SMOLLM2 = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""

LLAMA2 = """{%- if messages[0].role == 'system' %}
    {%- set first = '<<SYS>>\\n' ~ messages[0].content ~ '\\n<</SYS>>\\n\\n' %}{% set turns = messages[1:] %}
{%- else %}
    {%- set first = '' %}{% set turns = messages %}
{%- endif %}
{%- for message in turns %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('user and assistant take turns') }}{% endif %}
    {%- if message.role == 'user' %}{{- bos_token + '[INST] ' + (first + message.content if loop.first else message.content).strip() + ' [/INST]' }}
    {%- else %}{{- ' ' + message.content.strip() + ' ' + eos_token }}{% endif %}
{%- endfor %}"""

LLAMA3 = """{{- bos_token }}
{%- if not date_string is defined %}{% if strftime_now is defined %}{% set date_string = strftime_now("%d %b %Y") %}{% endif %}{% endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}{% set messages = messages[1:] %}
{%- else %}{% set system = "" %}{% endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{% endif %}
{{- "Cutting Knowledge Date: December 2023\\nToday Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{% endfor %}
{%- endif %}
{{- system }}{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson }}{{- "}<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {{- message.content | tojson if message.content is mapping else message.content }}{{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}
"""

GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('user and model take turns') }}{% endif %}
{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}
{% endfor %}
{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""

MISTRAL = """{%- set ns = namespace(last=-1) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'system' %}{{- '[INST] ' + message.content + '\\n\\n' }}{% continue %}{% endif %}
    {%- if message.role == 'user' %}
        {%- if tools and loop.index0 == ns.last %}{{- '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{% endif %}
        {{- ('' if loop.previtem is defined and loop.previtem.role == 'system' else '[INST] ') + message.content + ' [/INST]' }}
    {%- elif message.tool_calls is defined %}
        {{- '[TOOL_CALLS] [' }}{% for call in message.tool_calls %}{{- call.function | tojson }}{{- ', ' if not loop.last }}{% endfor %}{{- ']' + eos_token }}
    {%- elif message.role == 'assistant' %}{{- ' ' + message.content + eos_token }}
    {%- elif message.role == 'tool' %}{{- '[TOOL_RESULTS] {"content": ' + message.content | string + '}[/TOOL_RESULTS]' }}
    {%- else %}{{- raise_exception('unknown role ' + message.role) }}{% endif %}
{%- endfor %}"""

QWEN = """{%- macro text(content) %}{% if content is string %}{{- content }}{% else %}{% for part in content %}{{- part.text }}{% endfor %}{% endif %}{% endmacro %}
{%- if tools %}
    {{- '<|im_start|>system\\n' + (text(messages[0].content) + '\\n\\n' if messages[0].role == 'system' else '') }}
    {{- "# Tools\\n\\n<tools>" }}{% for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{% endfor %}{{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + text(messages[0].content) + '<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
    {%- if message.role == 'system' and loop.first %}{% continue %}{% endif %}
    {%- set content = text(message.content) if message.content is defined else '' %}
    {%- if message.role == 'assistant' %}
        {%- if '</think>' in content %}{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}
        {{- '<|im_start|>assistant\\n' + content }}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + content + '\\n</tool_response><|im_end|>\\n' }}
    {%- else %}{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""

T5 = """{% for message in messages %}{{ message.role }}: {{ message.content | replace('\n', ' ') }}

{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"""

GENERATION = """{% for message in messages %}
{{ '<|im_start|>' + message.role + '\n' }}{% if message.role == 'assistant' %}{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}
{% else %}{{ message.content + '<|im_end|>' }}{% endif %}{{ '\n' }}
{% endfor %}"""

SPECIALS = (
    "<|endoftext|> <s> </s> <|im_start|> <|im_end|> <|begin_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> "
    "<start_of_turn> <end_of_turn> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_CALLS] [TOOL_RESULTS] "
    "[/TOOL_RESULTS]"
).split()
LLAMA_TOKENS = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
CHATML_TOKENS = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
SENTENCEPIECE_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

# name -> template, its names for tokens, the token that ends an answer, whether it knows system messages, and tools
FAMILIES = {
    "smollm2": (SMOLLM2, CHATML_TOKENS, "<|im_end|>", True, False),
    "llama2": (LLAMA2, SENTENCEPIECE_TOKENS, "</s>", True, False),
    "llama3": (LLAMA3, LLAMA_TOKENS, "<|eot_id|>", True, True),
    "gemma": (GEMMA, SENTENCEPIECE_TOKENS, "<end_of_turn>", False, False),
    "mistral": (MISTRAL, SENTENCEPIECE_TOKENS, "</s>", True, True),
    "qwen": (QWEN, CHATML_TOKENS, "<|im_end|>", True, True),
    "t5": (T5, SENTENCEPIECE_TOKENS, None, True, False),
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "The weather < & > 'é'", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}},
]  # fmt: skip
WORDS = (
    "Hello!", "Who has the ball?", "  two spaces ", "\n\nlines\n", "<b>bold</b> & \"quoted\" 'é'", "{{ 7 * 7 }}", "a | b", "日本 🙂",
    "<think>hm</think>\n\nyes", "tabs\tand\\n", "x" * 40, "1 < 2 > 0",
)  # fmt: skip


def conversation(rng: random.Random, system: bool, tools: bool, words=WORDS) -> list[dict]:
    """Some turns of user and assistant; with a system message and tool calls where they are known."""
    text = lambda: " ".join(rng.choice(words) for _ in range(rng.randint(1, 3)))
    messages = [{"role": "system", "content": text()}] if system and rng.random() < 0.5 else []
    for _ in range(rng.randint(1, 3)):
        messages.append({"role": "user", "content": text()})
        if tools and rng.random() < 0.4:
            call = {"name": "weather", "arguments": {"city": text(), "days": 2}}
            messages.append({"role": "assistant", "tool_calls": [{"type": "function", "function": call}]})
            messages.append({"role": "tool", "name": "weather", "content": text()})
        messages.append({"role": "assistant", "content": text()})
    return messages if rng.random() < 0.7 else messages[:-1]
