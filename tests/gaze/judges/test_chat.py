"""`judge_chat` against an endpoint of our own that stalls, is busy and talks nonsense."""

import base64
import io
import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gaze.judges.by_name import make_judge
from gaze.judges.chat import Bill, Chat, numbered, parse
from gaze.judges.judge import Failed, Item, Judge
from gaze.judges.likelihood import Likelihood
from gaze.judges.refusals import lasts, passes
from gaze.pictures.strips import Photo, Strip
from qwen3vl_jax.errors import InputError

from ...spoiling import edits, fuzz, mutations

STRIP = Strip("strip", Image.new("RGB", (90, 20), "red"), (30, 30, 30))
SECRET = "key-of-the-test"


def completion(content):
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    reply = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return json.dumps(reply).encode()


class Endpoint(ThreadingHTTPServer):
    """Does what its script says, one entry per request, the last one for ever.

    An entry is a reply, a status, seconds to wait before an empty reply, raw bytes to send instead of a completion, or a status
    with such bytes.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.requests, self.keys, self.lock = ["1"], [], [], threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(body)
            self.server.keys.append(self.headers["Authorization"])
            script = self.server.script
            entry = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(entry, float):
            time.sleep(entry)
        status, entry = entry if isinstance(entry, tuple) else (entry if isinstance(entry, int) else 200, entry)
        text = entry if isinstance(entry, str) else ""
        reply = completion(text)
        with suppress(OSError):  # the client may have left
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(entry if isinstance(entry, bytes) else reply)

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(endpoint, *texts, **settings):
    """Verdicts of a judge that asks about one text after the other."""
    with_defaults = {"parallel": 1, "retries": 0, "timeout": 20.0, **settings}
    return Chat("m", endpoint.url, **with_defaults)([Item(STRIP, text) for text in texts])


def test_verdicts(endpoint):
    endpoint.script = ["1", "3", "0", " 2.\n"]
    assert ask(endpoint, "a", "b", "c", "d") == [0, 2, None, 1]


def test_what_is_sent(endpoint):
    ask(endpoint, " a cat ")
    [request] = endpoint.requests
    assert (request["model"], request["temperature"], endpoint.keys) == ("m", 0, [f"Bearer {SECRET}"])
    [message] = request["messages"]
    picture, words = message["content"]
    header, data = picture["image_url"]["url"].split(",")
    assert header == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == numbered(STRIP).size
    assert "\na cat\n" in words["text"]
    assert "from 1 to 3" in words["text"]


def test_the_same_text_is_asked_once_and_an_empty_one_not(endpoint):
    endpoint.script = ["2", "3"]
    assert ask(endpoint, "a", "", " a", "b", " \n") == [1, None, 1, 2, None]
    assert len(endpoint.requests) == 2


def test_the_baseline_is_shown_if_wanted(endpoint):
    item = Item(STRIP, "a cat", baseline="a dog")
    for show in (False, True):
        Chat("m", endpoint.url, show)([item])
    without, shown = (
        [part["text"] for part in r["messages"][0]["content"] if "text" in part] for r in endpoint.requests
    )
    assert ("a dog" in without[0], "a dog" in shown[0]) == (False, True)
    Chat("m", endpoint.url, True)([Item(STRIP, "a cat")])
    assert endpoint.requests[2] == endpoint.requests[0]


def test_busy_and_broken_endpoints_are_asked_again(endpoint):
    endpoint.script = [429, 500, 503, "2"]
    assert ask(endpoint, "a", retries=3) == [1]
    assert len(endpoint.requests) == 4


def test_retries_end(endpoint):
    endpoint.script = [429, 429, "2"]
    [first, second] = ask(endpoint, "a", "b", retries=1)
    assert isinstance(first, Failed)
    assert "RateLimitError" in first.reason
    assert second == 1


def test_a_stalling_endpoint_is_given_up_and_asked_again(endpoint):
    endpoint.script = [3.0, "2"]
    assert ask(endpoint, "a", timeout=0.3, retries=1) == [1]
    endpoint.script = [3.0, "2"]
    [first, second] = ask(endpoint, "a", "b", timeout=0.3)
    assert isinstance(first, Failed)
    assert "Timeout" in first.reason
    assert second == 1


@pytest.mark.parametrize("host", ["127.0.0.1:9", "nowhere.invalid"])
def test_a_host_that_is_not_there_ends_the_judging(host, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    judge = Chat("m", f"http://{host}/v1", retries=0 if host[0] == "1" else 5)
    start = time.monotonic()
    with pytest.raises(InputError, match="cannot be asked"):
        judge([Item(STRIP, text) for text in "abcdefgh"])
    assert judge.bill.requests == 1
    assert time.monotonic() - start < 3


def refused_connection(error):
    """As the client hands it on."""
    import openai

    class ConnectError(Exception):
        pass

    try:
        try:
            raise ConnectError("no connection") from error
        except ConnectError as outer:
            raise openai.APIConnectionError(request=None) from outer
    except openai.APIConnectionError as found:
        return found


@pytest.mark.parametrize(
    ("error", "want"),
    [
        (socket.gaierror(-2, "Name or service not known"), True),
        (ssl.SSLCertVerificationError(1, "self-signed certificate"), True),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), True),
        (ssl.SSLEOFError(8, "EOF occurred"), False),
        (ConnectionRefusedError(111, "Connection refused"), False),
        (ConnectionResetError(104, "Connection reset by peer"), False),
        (TimeoutError("timed out"), False),
    ],
)
def test_which_connections_are_tried_again(error, want):
    found = refused_connection(error)
    assert (lasts(found), passes(found)) == (want, True)


def test_an_untrusted_certificate_ends_the_judging_at_once(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    judge, start = Chat("m", "https://localhost/v1", retries=5), time.monotonic()
    monkeypatch.setattr(judge.client, "with_options", lambda **_: judge.client)
    calls = []

    def create(**_):
        calls.append(1)
        raise refused_connection(ssl.SSLCertVerificationError(1, "self-signed certificate"))

    monkeypatch.setattr(judge.client.chat.completions, "create", create)
    with pytest.raises(InputError, match="self-signed"):
        judge([Item(STRIP, text) for text in "abc"])
    assert len(calls) == 1
    assert time.monotonic() - start < 3


def test_an_endpoint_that_goes_away_fails_the_item(endpoint):
    judge = Chat("m", endpoint.url, parallel=1, retries=0)
    assert judge([Item(STRIP, "a")]) == [0]
    endpoint.shutdown()
    endpoint.socket.close()
    [verdict] = judge([Item(STRIP, "b")])
    assert isinstance(verdict, Failed)
    assert "refused" in verdict.reason


@pytest.mark.parametrize(
    "junk",
    [
        *["", "Panel 2", "2 or 3", "4", "-1", "two", b"<html>", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{}]}'],
        *[
            b"null",
            b"1",
            b"\xff\xfe",
            b"[" * 100_000,
            b" " * 2**21,
            b"NaN",
            b'{"choices": [[]]}',
            b'{"choices": {"0": 1}}',
        ],
        *[completion(content) for content in ("1", 1, 1.5, True, None, ["1"], {"text": "1"}) if content != "1"],
        "1" * 100_000,
        "\0\x1b[2J",
    ],
)
def test_nonsense_is_no_verdict(endpoint, junk):
    endpoint.script = [junk]
    [verdict] = ask(endpoint, "a")
    assert isinstance(verdict, Failed)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_ends_the_judging_after_one_request(endpoint, status):
    endpoint.script = [status, "1"]
    with pytest.raises(InputError, match="cannot be asked"):
        ask(endpoint, *"abcdefgh", parallel=4, retries=5)
    assert len(endpoint.requests) == 1


def refusal(status, **error):
    return (status, json.dumps({"error": {"message": "no", **error}}).encode())


@pytest.mark.parametrize(
    "entry",
    [
        *[refusal(400, code=code) for code in ("model_not_found", "unsupported_parameter", "unsupported_value")],
        *[refusal(400, param=name) for name in ("model", "temperature", "response_format", "max_tokens")],
        *[refusal(status, code="insufficient_quota") for status in (400, 429, 503)],
        refusal(422, param="temperature"),
    ],
)
def test_a_bad_request_of_every_items_ends_the_judging_after_one(endpoint, entry):
    endpoint.script = [entry]
    with pytest.raises(InputError, match="cannot be asked"):
        ask(endpoint, *"abcdefgh", parallel=4, retries=5)
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(
    "error", [{}, {"code": "other"}, {"code": ["x"], "param": {}}, {"param": "messages[0].content"}]
)
def test_bad_requests_of_unknown_cause_end_the_judging_after_three(endpoint, status, error):
    endpoint.script = [refusal(status, **error)]
    with pytest.raises(InputError, match="cannot be asked"):
        ask(endpoint, *"abcdefgh", parallel=4, retries=5)
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize("code", ["content_filter", "context_length_exceeded", "image_parse_error"])
@pytest.mark.parametrize("status", [400, 403, 422])
def test_what_is_wrong_with_an_item_fails_it_alone(endpoint, status, code):
    endpoint.script = [*[refusal(status, code=code, param="prompt")] * 5, "1"]
    verdicts = ask(endpoint, *"abcdef")
    assert [isinstance(verdict, Failed) for verdict in verdicts] == [True] * 5 + [False]


def test_bad_requests_after_an_answer_are_the_items_own(endpoint):
    endpoint.script = ["1", 400, 400, 400, 400, "2"]
    verdicts = ask(endpoint, *"abcdef")
    assert [isinstance(verdict, Failed) for verdict in verdicts] == [False, *[True] * 4, False]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_every_retry_is_made_of_the_first_request_too(endpoint, status):
    endpoint.script = [status]
    [verdict] = ask(endpoint, "a", retries=2)
    assert isinstance(verdict, Failed)
    assert len(endpoint.requests) == 3


def test_what_is_refused_stays_refused(endpoint):
    endpoint.script = ["1", 401, "1"]
    judge = Chat("m", endpoint.url, parallel=1)
    assert judge([Item(STRIP, "a")]) == [0]
    for _ in range(2):
        with pytest.raises(InputError):
            judge([Item(STRIP, "b"), Item(STRIP, "c")])
    assert len(endpoint.requests) == 2


ENCODED = {
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 of a header": base64.b64encode(f"Bearer {SECRET}".encode()).decode(),
    "urlsafe base64": base64.urlsafe_b64encode(f"me:{SECRET}".encode()).decode(),
    "hexadecimal": SECRET.encode().hex(),
    "url": "".join(f"%{ord(sign):02X}" for sign in SECRET),
}
ECHOES = {
    "whole": f"bad key: Bearer {SECRET}",
    "capitals": SECRET.upper(),
    "half": f"no such key {SECRET[:9]}...",
    "masked": f"{SECRET[:3]}****{SECRET[-4:]}",
    "late": "x" * 140 + SECRET,
    **ENCODED,
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
@pytest.mark.parametrize("status", [400, 401, 500, 200])
def test_no_part_of_the_key_is_repeated(endpoint, echo, status, capsys):
    error = json.dumps({"error": {"message": echo, "code": echo}}).encode()
    endpoint.script = [(status, error if status != 200 else completion(echo))]
    try:
        said = ask(endpoint, "a", "b")
        assert all(isinstance(verdict, Failed) for verdict in said)
        told = repr(said)
    except InputError as refused:
        told = str(refused)
    told += "".join(capsys.readouterr())
    pieces = [SECRET[start : start + 8] for start in range(len(SECRET) - 7)]
    assert not [
        piece
        for piece in [*pieces, SECRET[-4:], *(form[10:22].lower() for form in ENCODED.values())]
        if piece in told.lower()
    ]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://a/v1",
        "http://",
        "http://user:hunter2@a/v1",
        "http://a/v1?key=hunter2",
        "http://a b/v1",
        "http://a:x",
        "http://a..b/v1",
        f"http://{'x' * 70}/v1",
    ],
)
def test_urls_that_are_no_endpoint(url, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for make in (lambda: Chat("m"), lambda: Chat("m", url or None), lambda: make_judge(f"chat:m@{url}", Likelihood)):
        with pytest.raises(InputError) as refused:
            make()
        assert "hunter2" not in str(refused.value)
        assert refused.value.__context__ is None or "hunter2" not in str(refused.value.__context__)


def test_replies_that_never_end_are_given_up(endpoint):
    endpoint.script = [b" " * 2**21, "1"]
    start = time.monotonic()
    first, second = ask(endpoint, "a", "b")
    assert isinstance(first, Failed)
    assert second == 0
    assert time.monotonic() - start < 10


def test_pictures_made_on_the_way_are_told_apart(endpoint):
    class Passing(Sequence):
        """Makes each item when it is asked for, and keeps none."""

        def __len__(self):
            return 6

        def __getitem__(self, index):
            if not 0 <= index < 6:
                raise IndexError
            return Item(Strip(f"s{index}", Image.new("RGB", (90, 20)), (30, 30, 30)), "a")

    endpoint.script = ["1", "2", "3", "0", "1", "2"]
    assert Chat("m", endpoint.url, parallel=1)(Passing()) == [0, 1, 2, None, 0, 1]


def test_a_bad_request_is_the_items_own_affair(endpoint):
    endpoint.script = [400, "1"]
    assert [isinstance(verdict, Failed) for verdict in ask(endpoint, "a", "b")] == [True, False]


def test_a_dry_run_counts_and_sends_nothing(endpoint, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    judge = Chat("m", endpoint.url, dry_run=True)
    verdicts = judge([Item(STRIP, "a"), Item(STRIP, "a"), Item(STRIP, ""), Item(STRIP, "b" * 400)])
    assert [isinstance(verdict, Failed) for verdict in verdicts] == [True, True, False, True]
    assert not endpoint.requests
    short = Chat("m", endpoint.url, dry_run=True)
    short([Item(STRIP, "a"), Item(STRIP, "b")])
    width, height = numbered(STRIP).size
    assert judge.bill.tokens - short.bill.tokens in (99, 100)
    assert judge.bill == Bill(2, 2, judge.bill.tokens)
    assert short.bill.tokens > 2 * (width // 32) * (height // 32)


def test_requests_run_side_by_side(endpoint):
    endpoint.script = [0.5] * 4
    start = time.monotonic()
    ask(endpoint, *"abcd", parallel=4)
    assert time.monotonic() - start < 1.8


def test_name_and_version():
    def version(*args, **settings):
        return Chat(*args, dry_run=True, **settings).version

    judge = Chat("m", "http://a/v1", dry_run=True)
    assert isinstance(judge, Judge)
    assert judge.name == "chat:m"
    others = [version("n", "http://a/v1"), version("m", "http://b/v1"), version("m", "http://a/v1", show_baseline=True)]
    assert len({judge.version, *others}) == 4
    assert version("m", "http://a/v1", retries=9, timeout=1.0, parallel=1) == judge.version


def test_the_endpoint_may_stand_in_the_environment(endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    monkeypatch.delenv("OPENAI_API_KEY")
    judge = Chat("m")
    assert judge([Item(STRIP, "a")]) == [0]
    assert judge.version == Chat("m", endpoint.url).version


def test_a_missing_key_or_package_is_told_at_once(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(InputError, match="set OPENAI_API_KEY"):
        Chat("m")
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match="needs the extra `judge`"):
        Chat("m", "http://127.0.0.1:9/v1")


@pytest.mark.parametrize(("reply", "want"), [("0", None), ("1", 0), ("12.", 11)])
def test_parse(reply, want):
    assert parse(reply, 12) == want


def test_numbered_shows_every_region_in_its_place():
    image = Image.new("RGB", (300, 100))
    boxes = ((0, 0, 100, 100), (100, 0, 300, 20), (298, 0, 300, 100))
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    for box, colour in zip(boxes, colours, strict=True):
        image.paste(colour, box)
    sheet = np.asarray(numbered(Photo("p", image, boxes))).astype(int)
    places = [np.argwhere(np.abs(sheet - colour).sum(axis=2) < 60)[:, 1].mean() for colour in colours]
    assert places == sorted(places)
    labels = np.argwhere(sheet[:36].sum(axis=2) < 100)[:, 1]
    assert np.histogram(labels, [0, (places[0] + places[1]) / 2, (places[1] + places[2]) / 2, 9999])[0].min() > 0
    assert numbered(Photo("p", image.convert("L"), boxes)).mode == "RGB"


@pytest.fixture
def judge(endpoint):
    return Chat("m", endpoint.url, parallel=1, retries=0)


@fuzz(60, nightly=2_000)
@given(st.sampled_from([200, 200, 200, 204, 302, 400, 401, 422, 429, 500, 999]), edits(), mutations(), st.booleans())
def test_any_reply_of_an_endpoint(endpoint, judge, status, edit, mutate, bytewise):
    sound = completion("1") if status == 200 else refusal(status, code="x", param="y", type="z")[1]
    changed = edit(sound) if bytewise else json.dumps(mutate(json.loads(sound))).encode()
    endpoint.script = [(status, changed)]
    judge.refused, judge.reached, judge.doubtful = None, False, 0
    try:
        [verdict] = judge([Item(STRIP, "a")])
    except InputError as error:
        verdict = Failed(str(error))
    assert verdict in (None, 0, 1, 2) or verdict.reason.isprintable()
