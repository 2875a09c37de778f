"""What nobody should send: tables that the tests of the parts, of the API over a fake, and of a real agent share."""

# Empty lists and objects have no type to name.
# mypy: disable-error-code="var-annotated"

from __future__ import annotations

from typing import Any

from meshcron.api.bodies import DIGITS_MAX
from tests.unit.api.api_client import Answer
from tests.unit.api.api_fake import SECRETS

MIB = 1024 * 1024

BAD_FIELDS: list[tuple[str, object]] = [
    *[("name", bad) for bad in (1, True, [], {}, "", ".x", "a/b", "../x", "a b", "a\r\nb", "\u202ex", "x" * 129)],
    *[("schedule", bad) for bad in (1, [], {}, "", "   ", "x" * 257, "* *\n* *")],
    *[("command", bad) for bad in (1, [], {}, "", " \n", "\x00", "\x1b")],
    *[("displayname", bad) for bad in (1, [], "a\nb", "x" * 257)],
    *[("timezone", bad) for bad in (1, [], "Mars and Moon", "x" * 100)],
    *[("owner", bad) for bad in (1, {}, "a\x00", "x" * 257)],
    *[("owner_email", bad) for bad in (1, [], "john", "a@b@c", "a@b\nBcc: c@d")],
    *[("run_as_user", bad) for bad in (1, [], "a b", "a:b", "-u", "x" * 300)],
    *[("disabled", bad) for bad in (0, 1, "true", "false", [], {}, "")],
    *[("tags", bad) for bad in (1, "role=web", [], ["role"])],
    *[("tags.role", {"role": bad}) for bad in ("web:x", "web:0", ":1", [], {}, "a\nb")],
    *[("metadata", bad) for bad in (1, "a", [])],
    ("metadata.a", {"a": {}}),
    *[("processors", bad) for bad in (1, "a", [])],
    ("processors.files", {"files": "x"}),
    ("processors.files.a", {"files": {"a": []}}),
    *[("executor", bad) for bad in (1, "", "Shell", "kafka", [])],
    *[("executor_config", bad) for bad in (1, "command", [])],
    *[("executor_config.command", {"command": bad}) for bad in ([], {}, "\x00")],
    *[("executor_config.shell", {"shell": bad}) for bad in ("yes", "", 2, [])],
    *[("executor_config.env", {"env": bad}) for bad in ("A", "A=1,B", [])],
    ("executor_config.env.1A", {"env": "1A=x"}),
    *[("executor_config.timeout", {"timeout": bad}) for bad in ("ten", "-1s", True)],
    *[("executor_config.payload", {"payload": bad}) for bad in ("%%%", "////", "gAA=", 1)],
    *[("executor_config.su", {"su": bad}) for bad in ("a b", "a:b")],
    ("executor_config.other", {"other": []}),
    *[("concurrency", bad) for bad in (1, "", "none", [])],
    *[("on_lost", bad) for bad in (1, "", "ignore")],
    *[("retries", bad) for bad in (-1, 1001, 1.5, "3", True, [], 10**300)],
    *[("retry_delay", bad) for bad in ("soon", -1, True, [], "500d")],
    *[("retry_backoff", bad) for bad in (0, 0.5, 101, "2", True, [])],
    *[("retry_on", bad) for bad in (1, "", "any")],
    *[("timeout", bad) for bad in ("soon", -1, 1e300, True, [], "1e3")],
    *[("env", bad) for bad in (1, "A=1", [])],
    *[("env.1A", {"1A": "x"}), ("env.MESHCRON_RUN", {"MESHCRON_RUN": "x"}), ("env.A", {"A": "\x00"})],
    *[("cwd", bad) for bad in (1, [], "a\x00", "x" * 5000)],
    *[("shell", bad) for bad in (1, "true", [])],
    *[("payload", bad) for bad in (1, [], "\x00")],
    *[("success_exit_codes", bad) for bad in (0, "0", [], {}, [0] * 257)],
    *[("success_exit_codes.0", [bad]) for bad in (-1, 256, "0", True, None)],
    *[("nice", bad) for bad in (-1, 20, "0", 0.5)],
    *[("limits", bad) for bad in (1, [], "1G")],
    *[("limits.memory", {"memory": bad}) for bad in (-1, 2**60, "1G", True)],
    *[("limits.processes", {"processes": bad}) for bad in (-1, 2**30, "1")],
    *[("history", bad) for bad in (1, [])],
    *[("history.runs", {"runs": bad}) for bad in (0, -1, 10**9, "5")],
    *[("history.days", {"days": bad}) for bad in (0, 10**9, 1.5)],
    *[("catch_up", bad) for bad in (1, "", "some")],
    *[("start_deadline", bad) for bad in ("soon", -1, [], "0s", "", 0.9)],
    *[("parent_job", bad) for bad in (1, "a/b", [])],
    *[("parent_jobs", bad) for bad in (1, "a", {}, ["p"] * 257)],
    *[("parent_jobs.0", [bad]) for bad in (1, "", "a/b", None)],
    *[("when", bad) for bad in (1, "", "never")],
    *[("starts_at", bad) for bad in (1, "tomorrow", "2030-01-01", "1969-12-31T00:00:00Z", [])],
    *[("expires_at", bad) for bad in (1, "tomorrow", [])],
    *[("ephemeral", bad) for bad in (1, "true", [])],
]
"""What a field of a job is called where it is refused, and a value of the key in front of the first dot."""

BAD_RUNS: list[tuple[str, object]] = [
    *[("env", bad) for bad in (1, [], "A=1", True)],
    ("env.a b", {"a b": "c"}),
    ("env.MESHCRON_X", {"MESHCRON_X": "c"}),
    *[("env.A", {"A": bad}) for bad in ([], {}, "\x00", "\x1b")],
    ("env.", {"": "x"}),
]
"""The same for what a manual run adds to the environment: field, env."""

BAD_TOKENS: list[tuple[str, dict[str, Any]]] = [
    ("name", {"role": "viewer"}),
    ("name", {"name": None, "role": "viewer"}),
    *[("name", {"name": bad, "role": "viewer"}) for bad in (1, [], {}, True, "", "a b", "../x", "a\r\nb", "x" * 129)],
    ("role", {"name": "a"}),
    *[("role", {"name": "a", "role": bad}) for bad in ("root", "", "Admin", 1, [], {}, True)],
    *[("expires_in", {"name": "a", "role": "viewer", "expires_in": bad}) for bad in ("soon", -1, "500d", True, [])],
    *[("expires_at", {"name": "a", "role": "viewer", "expires_at": bad}) for bad in ("soon", 1, [], "2030-01-01")],
    ("expires_in", {"name": "a", "role": "viewer", "expires_in": "1h", "expires_at": "2030-01-01T00:00:00Z"}),
]
"""The same for a token: field, body."""

BAD_NAMES = ("..%2Fx", "a%2Fb", "%00", "a%0D%0AX-Evil:%201", "%E2%80%AEx", "x" * 10_000, ".x", "a%20b")
"""Names of jobs as they stand in a path (FAULTS 42)."""

REFUSED_BODIES = {
    b"": "is empty",
    b" \n\t ": "is empty",
    b"{": "is not JSON",
    b"{]": "is not JSON",
    b"nonsense": "is not JSON",
    b"{'a': 1}": "is not JSON",
    b'{"a": 01}': "is not JSON",
    b'{"a": 1.}': "is not JSON",
    b'{"a": -}': "is not JSON",
    b'{"a": 1,}': "is not JSON",
    b'{"a": 1} {}': "is not JSON",
    b'{"a": "\x01"}': "is not JSON",
    b'{"a": "tab\there"}': "is not JSON",
    b'{"a": "line\nend"}': "is not JSON",
    b'{"a": "\\x"}': "is not JSON",
    b'{"a": "': "is not JSON",
    b'{"a": "\\': "is not JSON",
    b'{"a": NaN}': "NaN",
    b'{"a": Infinity}': "Infinity",
    b'{"a": [-Infinity]}': "-Infinity",
    b'{"a": 1e400}': "too large a number",
    b'{"a": -1e999}': "too large a number",
    b'{"a": ' + b"9" * (DIGITS_MAX + 1) + b"}": f"a number of {DIGITS_MAX + 1} characters",
    b'{"a": 0.' + b"9" * DIGITS_MAX + b"}": "a number of",
    b'{"a": 1, "a": 2}': "given twice",
    b'{"b": {"a": 1, "a": 1}}': "given twice",
    b'{"a": "\\u0000"}': "NUL",
    b'{"\\u0000": 1}': "NUL",
    b'{"a": ["\\ud800"]}': "surrogate",
    b'{"a": {"\\udfff": 1}}': "surrogate",
    b'{"a": "\xff"}': "not UTF-8 at byte 7",
    '{"a": "ä"}'.encode("latin-1"): "not UTF-8",
    '{"a": 1}'.encode("utf-16"): "not UTF-8",
    '{"a": 1}'.encode("utf-16-le"): "is not JSON",
    b'\xef\xbb\xbf{"a": 1}': "byte order mark",
    b"\xed\xa0\x80": "not UTF-8",
}
"""Bodies that are no JSON object of ours -> what is said of them."""

HUGE_BODIES = {
    "deep arrays": b"[" * MIB,
    "deep objects": b'{"a":' * (MIB // 5),
    "deep but closed": b"[" * (MIB // 2) + b"]" * (MIB // 2),
    "many arrays": b"[" + b"[]," * (MIB // 3) + b"[]]",
    "many numbers": b"[" + b"1," * (MIB // 2 - 2) + b"1]",
    "many floats": b"[" + b"1.5," * (MIB // 4 - 2) + b"1]",
    "many keys": b"{" + b",".join(b'"%d":1' % i for i in range(MIB // 10)) + b"}",
    "one number": b"9" * MIB,
    "one float": b"0." + b"9" * MIB,
    "many digits": b"[" + b",".join([b"9" * 400] * (MIB // 401)) + b"]",
    "only escapes": b'"' + b"\\n" * (MIB // 2 - 1) + b'"',
    "escapes that never end": b'"' + b"\\\\" * (MIB // 2 - 1),
    "only quotes": b'"' * MIB,
    "one string": b'"' + b"a" * (MIB - 2) + b'"',
    "blanks": b" " * MIB + b"1",
    "unicode escapes": b'"' + b"\\u0041" * (MIB // 6) + b'"',
    "surrogates": b'"' + b"\\ud83d" * (MIB // 6) + b'"',
}
"""As large as a body may be, and as costly to read as it can be made."""


def head(method: str, path: str, *lines: str, token: str | None = SECRETS["admin"]) -> bytes:
    """The head of a request, exactly as given."""
    authorization = [f"Authorization: Bearer {token}"] if token else []
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *authorization, *lines, "", ""]).encode()


def answer_of(received: bytes) -> Answer:
    """The first answer in what was received."""
    first, _, rest = received.partition(b"\r\n\r\n")
    lines = first.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    return Answer(int(lines[0].split()[1]), headers, rest[: int(headers["Content-Length"])])  # type: ignore[arg-type]


MALFORMED = {
    "no host": b"GET /v1/jobs HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil\r\n\r\n",
    "host with a slash": b"GET /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1/x\r\n\r\n",
    "no request line": b"GARBAGE\r\n\r\n",
    "only a method": b"GET\r\n\r\n",
    "http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "space in the target": b"GET /v1/jobs /x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "control in the target": b"GET /v1/\x01jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "header without colon": b"GET /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nnonsense\r\n\r\n",
    "folded header": b"GET /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nA: b\r\n c\r\n\r\n",
    "NUL in a header": b"GET /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nA: \x00\r\n\r\n",
    "blank before the colon": b"GET /v1/jobs HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n",
    "negative length": head("POST", "/v1/jobs", "Content-Length: -1"),
    "length in words": head("POST", "/v1/jobs", "Content-Length: ten"),
    "lengths that differ": head("POST", "/v1/jobs", "Content-Length: 1", "Content-Length: 2"),
    "length of many digits": head("POST", "/v1/jobs", "Content-Length: " + "9" * 5000),
    "length and chunks": head("POST", "/v1/jobs", "Content-Length: 4", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "unknown transfer encoding": head("POST", "/v1/jobs", "Transfer-Encoding: gzip, chunked"),
    "bad chunk size": head("POST", "/v1/jobs", "Transfer-Encoding: chunked") + b"zz\r\n",
    "negative chunk size": head("POST", "/v1/jobs", "Transfer-Encoding: chunked") + b"-1\r\n",
    "chunk without its end": head("POST", "/v1/jobs", "Transfer-Encoding: chunked") + b"1\r\nxyz",
}
"""What is not HTTP. The token is the fake's."""
