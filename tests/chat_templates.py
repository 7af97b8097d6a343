"""Chat templates in the forms of well-known bases: their marks, and how an answer is begun; little else."""

from __future__ import annotations

_TURNS = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + (message.content or '') + '<|im_end|>\\n' }}
{%- endfor %}
"""
_HERMES_TOOLS = """\
{%- if tools %}
    {{- 'For each call, write: <tool_call>\\n{"name": <name>, "arguments": <object>}\\n</tool_call>' }}
{%- endif %}
"""
_BEGIN = """\
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
CHATML = _TURNS + _BEGIN
QWEN_2_5 = _HERMES_TOOLS + _TURNS + _BEGIN
HERMES = _TURNS + "{%- if tools %}{{ '<tool_call>{\"name\": ...}</tool_call>' }}{% endif %}" + _BEGIN

QWEN_3 = f"""\
{_HERMES_TOOLS}
{_TURNS}
{{%- if add_generation_prompt %}}
    {{{{- '<|im_start|>assistant\\n' }}}}
    {{%- if enable_thinking is defined and enable_thinking is false %}}
        {{{{- '<think>\\n\\n</think>\\n\\n' }}}}
    {{%- endif %}}
{{%- endif %}}
"""
"""The model opens its thoughts itself, unless they are switched off."""
QWEN_3_THINKING = f"""\
{_HERMES_TOOLS}
{_TURNS}
{{%- if add_generation_prompt %}}
    {{{{- '<|im_start|>assistant\\n<think>\\n' }}}}
{{%- endif %}}
"""
"""The prompt opens them, always."""
_CODER_TOOLS = """\
{%- if tools %}
    {{- '<tool_call>\\n<function=example>\\n<parameter=name>\\nvalue\\n</parameter>\\n</function>\\n</tool_call>' }}
{%- endif %}
"""
QWEN_3_CODER = _CODER_TOOLS + _TURNS + _BEGIN
QWEN_3_5 = f"""\
{_CODER_TOOLS}
{_TURNS}
{{%- if add_generation_prompt %}}
    {{{{- '<|im_start|>assistant\\n' }}}}
    {{%- if enable_thinking is defined and enable_thinking is false %}}
        {{{{- '<think>\\n\\n</think>\\n\\n' }}}}
    {{%- else %}}
        {{{{- '<think>\\n' }}}}
    {{%- endif %}}
{{%- endif %}}
"""
"""The prompt opens them, unless they are switched off."""

LLAMA_3 = """\
{%- for message in messages %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content + '<|eot_id|>' }}
    {%- if tools and loop.first %}
        {{- 'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
MISTRAL = """\
{%- for message in messages %}
    {%- if message.role == 'user' %}{{ '[INST] ' + message.content + '[/INST]' }}
    {%- elif message.tool_calls %}{{ '[TOOL_CALLS] [' + message.tool_calls | tojson + ']' + eos_token }}
    {%- else %}{{ ' ' + message.content + eos_token }}{% endif %}
{%- endfor %}
"""
DEEPSEEK_R1 = """\
{%- for message in messages %}
    {%- if message.role == 'user' %}{{ '<｜User｜>' + message.content }}
    {%- elif message.tool_calls %}
        {{- '<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>' }}
        {{- message.tool_calls[0].function.name + '\\n```json\\n' + message.tool_calls[0].function.arguments }}
    {%- else %}{{ '<｜Assistant｜>' + message.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}
"""
GPT_OSS = """\
{{- '<|start|>system<|message|>Reasoning: ' + (reasoning_effort or 'medium') + '<|end|>' }}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|end|>' }}
    {%- else %}{{ '<|start|>' + message.role + '<|message|>' + message.content + '<|end|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}
"""
