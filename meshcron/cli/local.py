"""Finding the agent on this machine and the token to talk to it with (API.md, Who may)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from meshcron.cli.failures import NO_AGENT, NOT_ALLOWED, USAGE, Failure
from meshcron.files import AGENT_FILE, LOCAL_FILE

URL_DEFAULT = "http://127.0.0.1:8080"
"""The default of `http` (API.md, Who may)."""

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where an agent listens on all interfaces, this machine reaches it on the loopback one."""


class Given(NamedTuple):
    """What the person said about where to go: flags beat the environment."""

    url: str | None
    token_file: Path | None
    data_dir: Path | None
    environment: Mapping[str, str]


class Endpoint(NamedTuple):
    """Where the API is and what opens it. `token` is "" when there is none, `why_no_token` says why."""

    url: str
    token: str
    why_no_token: str = ""


class Record(NamedTuple):
    """What the agent of a data directory wrote about itself; `url` is "" where there is nothing to read."""

    folder: Path
    url: str = ""
    pid: int = 0
    fingerprint: str = ""
    """Of its cluster key; "" = an older agent, which does not say."""
    key_from: str = ""
    """Where it found that key: a path, or a variable's name."""

    @property
    def runs(self) -> bool:
        """True while the process that wrote it lives. Of another user's process with its number it is False: once our
        agent is gone, anybody on this machine may listen on its port and wait for the token."""
        try:
            return Path(f"/proc/{self.pid}").stat().st_uid == (self.folder / AGENT_FILE).stat().st_uid
        except OSError:
            return False

    def reached_by(self, url: str) -> bool:
        """True where a URL means this agent. It need not lead there: another user may listen on `localhost` too. Nor
        does `localhost` mean one that listens on an address of the LAN alone: a tunnel to another may end there."""
        ours, asked = urlsplit(self.url), urlsplit(url)
        same_host = asked.hostname == ours.hostname or {asked.hostname, ours.hostname} <= LOOPBACK_HOSTS
        return bool(self.url) and same_host and (asked.scheme, asked.port) == (ours.scheme, ours.port)


def find(given: Given) -> Endpoint:
    """The agent to talk to: `--url`, MESHCRON_URL, the agent.json of the data directory, or the default address.

    The token is `--token-file`, MESHCRON_TOKEN, or the data directory's local.token; that last one opens everything
    on this machine and is sent to nobody but the agent that lives there. Raises Failure for a wrong URL, an unreadable
    token file, or a data directory that was named and has no agent.
    """
    asked = _asked_url(given)
    url = _checked_url(asked) if asked else recorded(data_dir(given)).url or _default_url(given)
    if given.token_file is not None:
        return Endpoint(url, _token(given.token_file))
    if token := given.environment.get("MESHCRON_TOKEN", "").strip():
        return Endpoint(url, _one_word(token, "MESHCRON_TOKEN"))
    return _with_local_token(url, recorded(data_dir(given)))


def _asked_url(given: Given) -> str:
    return given.url or given.environment.get("MESHCRON_URL", "").strip()


def _default_url(given: Given) -> str:
    """Where an agent may be that left no address. Whoever named a directory wants the one of that directory, and no
    other that happens to be at the default."""
    if given.data_dir is None and not given.environment.get("MESHCRON_DATA_DIR", "").strip():
        return URL_DEFAULT
    folder = data_dir(given)
    try:
        (folder / AGENT_FILE).stat()
    except (FileNotFoundError, NotADirectoryError):
        said = f"no agent runs in {folder}" if (folder / LOCAL_FILE).exists() else f"no agent has run in {folder}"
        said = f'{said}; start one with "meshcron up --data-dir {folder}", or name another directory or --url'
        raise Failure(said, NO_AGENT) from None
    except OSError:
        pass  # another user's directory: the agent may be there
    return URL_DEFAULT


def find_again(given: Given, before: Endpoint) -> Endpoint | None:
    """The agent that was at `before`, which no longer answers: it may be restarted, and on another port. None while
    there is nothing of it: no address, or nobody who may have the token."""
    if not _asked_url(given) and not recorded(data_dir(given)).url:
        return None
    found = find(given)
    return found if found.token or not before.token else None


def data_dir(given: Given) -> Path:
    """The agent's data directory, by the rules of config.py; root's where the user has none of an own.

    Raises InvalidRequest and StartRefused for a configuration file that is wrong.
    """
    if given.data_dir is not None:
        return given.data_dir
    if named := given.environment.get("MESHCRON_DATA_DIR", "").strip():
        return Path(named).expanduser()
    from meshcron import config  # noqa: PLC0415 - half of the start-up time of a command that was told where to go

    environment = {name: value for name, value in given.environment.items() if name == "MESHCRON_CONFIG"}
    mine = config.load({}, environment, config.config_files({}, environment)).data_dir
    return mine if mine.exists() else config.ROOT_DATA_DIR


def recorded(folder: Path) -> Record:
    """What there is of an agent.json: a half-written or foreign one is as none."""
    try:
        record = json.loads((folder / AGENT_FILE).read_text(encoding="utf-8"))
        parts, pid = urlsplit(_checked_url(record["url"])), int(record["pid"])
    except (OSError, ValueError, KeyError, TypeError, Failure):
        return Record(folder)
    if parts.hostname in EVERY_INTERFACE:
        host = EVERY_INTERFACE[parts.hostname]
        parts = parts._replace(netloc=f"[{host}]:{parts.port}" if ":" in host else f"{host}:{parts.port}")
    return Record(folder, parts.geturl(), pid, str(record.get("fingerprint", "")), str(record.get("key_from", "")))


def _checked_url(text: str) -> str:
    """A URL as given, `http://` added where there is no scheme. Raises Failure where it cannot be one of an agent."""
    url = text.strip() if "://" in text else f"http://{text.strip()}"
    try:
        parts = urlsplit(url)
        right = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        right = right and not (parts.query or parts.fragment or parts.username)
    except ValueError:
        right = False
    if not right:
        raise Failure(f'"{text}" is not the URL of an agent; it looks like {URL_DEFAULT}', USAGE)
    return url.rstrip("/")


def _token(file: Path) -> str:
    try:
        content = file.read_text(encoding="utf-8")
    except OSError as error:
        raise Failure(f"cannot read the token in {file} ({error.strerror}); name another --token-file", USAGE) from None
    except UnicodeDecodeError:
        content = ""
    return _one_word(content, str(file))


def _one_word(content: str, place: str) -> str:
    token = content.strip()
    if not token.isascii() or not token.isprintable() or len(token.split()) != 1:
        raise Failure(f'{place} holds no token; make one with "meshcron token add NAME"', USAGE)
    return token


def _with_local_token(url: str, record: Record) -> Endpoint:
    """The endpoint with the local token, or with the reason why it is kept back. With it the agent's own address is the
    one to go to, in place of another name for this machine; by `https` the certificate says who answers to a name."""
    file = record.folder / LOCAL_FILE
    try:
        token = _one_word(file.read_text(encoding="utf-8"), str(file))
    except PermissionError:
        return Endpoint(url, "", f"{file} is not readable for {_user()}")
    except (OSError, UnicodeDecodeError):
        return Endpoint(url, "", f"there is no {file}")
    if not record.reached_by(url):
        return Endpoint(url, "", f"{file} is for the agent at {record.url or 'no address known'} only")
    if not record.runs:
        return Endpoint(url, "", f"the agent that {file} is for does not run")
    return Endpoint(url if urlsplit(url).scheme == "https" else record.url, token)


def _user() -> str:
    return os.environ.get("USER") or f"user {os.geteuid()}"


def no_token(endpoint: Endpoint) -> Failure:
    """The agent wants a token and we have none, or a wrong one."""
    why = f" and {endpoint.why_no_token}" if endpoint.why_no_token else ""
    return Failure(
        f"the agent at {endpoint.url} wants a valid token{why}; "
        "run this as the user who runs the agent, or give --token-file or MESHCRON_TOKEN",
        NOT_ALLOWED,
    )
