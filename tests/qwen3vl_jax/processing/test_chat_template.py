"""Chat templates that would run for ever or fill the memory are refused at once; what templates really do is not."""

import time

import jinja2
import pytest
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.processing.bounded_jinja import BoundedEnvironment
from qwen3vl_jax.processing.chat_template import ChatTemplate
from qwen3vl_jax.processing.processor import CHAT_TEMPLATE

MESSAGES = [{"role": "user", "content": "Why?"}]
DOUBLED = "{% set ns = namespace(x='xxxx') %}{% for i in range(64) %}{% set ns.x = BODY %}{% endfor %}"
ENDLESS = {
    "nested": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "nested with text": "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "nested in a block": "{% set x %}{% for i in range(9999) %}{% for j in range(9999) %}x{% endfor %}{% endfor %}{% endset %}",
    "nested with nothing kept": "{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
    "over a text": "{% set x = 'x' * 90000 %}{% for i in x %}{% for j in x %}{% endfor %}{% endfor %}",
    "multiplied": "{{ 'x' * 10**9 }}",
    "multiplied from the left": "{{ 1000000000 * 'x' }}",
    "a list": "{{ [0] * 10**9 }}",
    "a list of lists": "{{ ([0] * 9999) * 99999 }}",
    "not shown": "{% set x = 'x' * 10**9 %}",
    "power": "{{ 10 ** (10 ** 10) }}",
    "squares": "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "doubled": DOUBLED.replace("BODY", "ns.x ~ ns.x"),
    "added": DOUBLED.replace("BODY", "ns.x + ns.x"),
    "joined": DOUBLED.replace("BODY", "ns.x.join(ns.x)"),
    "joined by a filter": DOUBLED.replace("BODY", "ns.x|join(ns.x)"),
    "replaced": DOUBLED.replace("BODY", "ns.x.replace('', ns.x)"),
    "replaced by a filter": DOUBLED.replace("BODY", "ns.x|replace('x', ns.x)"),
    "formatted": DOUBLED.replace("BODY", "'{0}{0}{0}'.format(ns.x)"),
    "formatted by a filter": DOUBLED.replace("BODY", "'%s%s'|format(ns.x, ns.x)"),
    "in a block": "{% set x %}x{% endset %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 64,
    "lists": "{% set x = [1] %}" + "{% set x = [x, x] %}" * 64 + "{{ x }}",
    "lists compared": "{% set x, y = [1], [1] %}" + "{% set x, y = [x, x], [y, y] %}" * 64 + "{{ x == y }}",
    "mappings": "{% set x = {} %}" + "{% set x = {'a': x, 'b': x} %}" * 64 + "{{ x|tojson }}",
    "mappings by a call": "{% set x = dict() %}" + "{% set x = dict(a=x, b=x) %}" * 64 + "{{ x|string }}",
    "a macro": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(64) }}",
    "a recursive loop": "{% for i in [[1]] * 64 recursive %}{{ loop([i] * 64) if loop.depth < 64 }}{% endfor %}",
    "centred": "{{ 'x'|center(10**9) }}",
    "padded": "{{ 'x'.rjust(1000000000) }}",
    "zeros": "{{ 'x'.zfill(1000000000) }}",
    "tabs": "{{ '\t'.expandtabs(1000000000) }}",
    "indented": "{{ 'x\ny'|indent(1000000000) }}",
    "indented JSON": "{{ ([0] * 10000)|tojson(indent=100000) }}",
    "batched": "{{ [1]|batch(1000000000, 0)|list }}",
    "sliced": "{{ [1]|slice(1000000000)|list }}",
    "a wide field": "{{ '{:1000000000}'.format(1) }}",
    "a wide field of a mapping": "{{ '{x:1000000000}'.format_map({'x': 1}) }}",
    "a field as wide as told": "{{ '{:{}}'.format(1, 1000000000) }}",
    "a wide field in the old way": "{{ '%1000000000d' % 1 }}",
    "a wide field by a filter": "{{ '%1000000000d'|format(1) }}",
    "as wide as told": "{{ '%*d' % (1000000000, 1) }}",
    "bytes": "{{ (1).to_bytes(1000000000, 'big') }}",
    "filler": "{{ lipsum(n=1000000) }}",
    "long": "x" * 2**19,
    "searched": "{% set x = 'x' * 8000000 %}{% for i in range(99999) %}{% set y = 'y' in x %}{% endfor %}",
    "summed": "{% for i in range(99999) %}{% set y = range(99999)|sum %}{% endfor %}",
}


@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS)
def test_what_does_not_end_is_refused_at_once(text: str) -> None:
    start = time.process_time()
    with pytest.raises(InputError, match=r"some\.jinja cannot be read as a chat template"):
        ChatTemplate(text, "some.jinja").render(MESSAGES, {})
    assert time.process_time() - start < 8


USUAL = {
    "the default": CHAT_TEMPLATE,
    "turns from the end": "{% for m in messages[::-1] %}{{ (messages|length - 1) - loop.index0 }}{{ m.role }}{% endfor %}",
    "tools": "{% for t in [{'a': {'b': [1, 2]}}] %}{{ t|tojson }} {{ t | tojson(indent=4) }}{% endfor %}",
    "thoughts": "{% set c = '<think>a</think>b' %}{% if '</think>' in c %}{{ c.split('</think>')[-1].lstrip('\n') }}{% endif %}",
    "macros": "{% macro m(c, n=1) %}{{ c ~ n }}{% endmacro %}{% for t in messages %}{{ m(t.role, n=loop.index) }}{% endfor %}",
    "filters": "{{ messages|map(attribute='content')|join(', ')|trim }}{{ ['b', 'a']|sort|list }}{{ 'a b'|replace(' ', '_') }}",
    "selected": "{{ messages|selectattr('role', 'equalto', 'user')|list|length }}{{ 'x'|center(8) }}{{ '%05.2f'|format(2) }}",
    "formats": "{{ '{} is {:>4}'.format(1700000000, 2) }}{{ '%d%%' % 1700000000 }}{{ 2 ** 10 }}{{ 7 % 4 }}{{ 'a' + 'b' }}",
    "unpacked": "{% for k, v in {'a': 1, 'b': [2]}.items() %}{{ k }}={{ v }}{% if loop.last %}.{% endif %}{% endfor %}",
    "blocks": "{% set x %}a{{ 1 }}{% endset %}{{ x }}"
    "{% for i in range(9) if i is odd %}{{ i }}{% if i > 5 %}{% break %}{% endif %}{% endfor %}",
    "nothing": "{{ none }}{{ missing }}{{ missing.x is defined }}{{ [1, 'a', none, true, 1.5] }}{{ (1, 2) }}{{ 'é' * 3 }}",
}


@pytest.mark.parametrize("text", USUAL.values(), ids=USUAL)
def test_the_text_is_jinjas_own(text: str) -> None:
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    plain.filters["tojson"] = lambda value, indent=None: __import__("json").dumps(
        value, ensure_ascii=False, indent=indent
    )
    given = {"messages": MESSAGES * 3, "tools": None, "documents": None, "add_generation_prompt": True}
    try:
        wanted = plain.from_string(text).render(given)
    except jinja2.TemplateError as error:
        wanted = type(error).__name__
    try:
        found = ChatTemplate(text, "some.jinja").render(MESSAGES * 3, {})
    except InputError:
        found = "UndefinedError"
    assert found == wanted


def test_long_conversations_are_rendered() -> None:
    messages = [{"role": "user", "content": "word " * 1000}] * 300
    text = ChatTemplate(CHAT_TEMPLATE, "some.jinja").render(messages, {})
    assert len(text) > 1_500_000


def test_a_template_is_compiled_once_and_each_rendering_has_the_whole_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    parse = BoundedEnvironment.parse
    monkeypatch.setattr(BoundedEnvironment, "parse", lambda self, text: parsed.append(text) or parse(self, text))
    text = "{% for i in range(6000) %}x{% endfor %}"
    for _ in range(3):
        assert ChatTemplate(text, "test").render([], {}) == "x" * 6000
        with pytest.raises(InputError, match="does not end"):
            ChatTemplate("{% for m in messages %}" + text + "{% endfor %}", "test").render([{}] * 9, {})
    assert parsed == list(dict.fromkeys(parsed))
    assert parsed[0] == text
