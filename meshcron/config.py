"""An agent's configuration: one table of keys, from which the flags, the variables, the file and the help come.

A flag is its key with `-` for `_`; a variable is `MESHCRON_` and the key in upper case, lists with commas. A flag
beats a variable, that beats the files, a later file beats an earlier one, all beat the defaults; a list replaces a
list. Nothing is passed over in silence: an unknown key or a wrong value is refused with its place and the remedy.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import platformdirs
from msgspec import Struct

from meshcron import values
from meshcron.errors import InvalidRequest, StartRefused
from meshcron.values import Address, Reader

DEFAULT_FILE = Path("/etc/meshcron/meshcron.toml")
"""Read where it exists; then `conf.d/*.toml` beside it, in the order of their names."""

ROOT_DATA_DIR = Path("/var/lib/meshcron")
"""Where a service of root's keeps its state (FHS 3.0, 5.8)."""

GATE_PORT = 8946
"""The default of `gate_port`, and what a `join` without a port means."""

HORIZON_US_MIN = 1_500_000
"""Ticks are armed ahead to outlast the leader's death, and a fail-over may take 1.3 s."""

HORIZON_US_MAX = 60_000_000
"""An edit of a job holds from beyond the horizon on: a minute is the longest that people take for granted."""

MEMBERS_MAX = 100
"""For `expect`: a cluster of a hundred is more than was ever run for real (fifty, docs/FAULTS.md)."""

ORPHAN_AGE_US_MAX = 365 * 86_400 * 10**6
"""A year: longer nobody looks for what a damaged database has forgotten."""

SLOTS_MAX = 10_000
"""Processes at once; more would meet the system's own limits on processes and open files first."""

PRIORITY_MAX = 1_000_000
"""Priorities are only compared; the bound catches a slip."""

OTHER_VARIABLES = frozenset(
    f"MESHCRON_{word}"
    for word in (
        *("KEY", "URL", "TOKEN"),  # a secret is never part of a Config; where the command line finds its agent
        *("JOB", "RUN", "EXECUTION", "SCHEDULED_AT", "ATTEMPT", "AGENT"),  # what a job sees: it may start an agent
        *("FAIL", "SEEDS"),  # the tests'
    )
)
"""Variables with our prefix that are no keys."""


class Key(Struct, frozen=True, kw_only=True):
    """One row of the table: what a key is called everywhere, how it is read, what it says in the help."""

    name: str
    """As in a file; `flag` and `variable` follow from it."""
    attribute: str
    """The field of Config: the name, with its unit where there is one."""
    read: Reader
    written_default: str | int | bool | list[str]
    """As a person would write it in a file; conf/meshcron.toml shows it."""
    help: str
    metavar: str = ""
    """What the help shows for the value; empty for a switch."""
    choices: tuple[str, ...] = ()
    repeatable: bool = False
    """The flag may be given more than once."""
    flag_only: bool = False
    """No file may hold it."""

    @property
    def flag(self) -> str:
        """`--gate-port` for `gate_port`."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """`MESHCRON_GATE_PORT` for `gate_port`."""
        return "MESHCRON_" + self.name.upper()

    @property
    def switch(self) -> bool:
        """True when the flag stands alone, without a value."""
        return isinstance(self.written_default, bool)


UNITS = ("_us", "_bytes")
"""An attribute's unit, which a key does without: a value brings its own."""


def _key(
    read: Reader, written_default: str | int | bool | list[str], help_: str, metavar: str = "", **more: Any
) -> Any:
    """A field of Config that is a key. Its default is the written one, read as a file's would be."""
    row = {"read": read, "written_default": written_default, "help": help_, "metavar": metavar, **more}
    return dataclasses.field(default_factory=lambda: read("default", written_default), metadata=row)


def _machine_key(read: Reader, help_: str, metavar: str) -> Any:
    """A key whose default is the machine's own: a field that must be given, written as empty."""
    return dataclasses.field(metadata={"read": read, "written_default": "", "help": help_, "metavar": metavar})


def _choice(words: tuple[str, ...], help_: str) -> Any:
    """A key with a few words as values, the first of them the default."""
    return _key(values.choice(*words), words[0], help_, "|".join(words), choices=words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What one agent was told. From `load` it is complete and has passed `validate`."""

    config: Path | None = _key(
        values.path,
        "",
        f"Configuration file ({DEFAULT_FILE} where it exists, then conf.d/*.toml beside it).",
        "FILE",
        flag_only=True,
    )
    name: str = _machine_key(values.agent_name, "This agent's name in the cluster (the host name).", "NAME")
    data_dir: Path = _machine_key(
        values.path, f"Folder of its state ({ROOT_DATA_DIR} as root, else the user's state folder).", "DIR"
    )
    adopt_data_dir: bool = _key(
        values.switch,
        False,
        "Go on as a new agent where data_dir was copied or moved here; its old identity is set aside.",
        flag_only=True,
    )
    tag: Mapping[str, str] = _key(
        values.tags, [], "What jobs select this agent by, such as role=web.", "K=V", repeatable=True
    )
    key_file: Path | None = _key(
        values.path, "", "File with the cluster key (MESHCRON_KEY holds the key itself).", "FILE"
    )
    join: tuple[Address, ...] = _key(
        values.listed(values.peer_address(GATE_PORT)),
        [],
        f"Another agent's gate, where multicast does not pass (port {GATE_PORT}).",
        "HOST[:PORT]",
        repeatable=True,
    )
    no_mdns: bool = _key(values.switch, False, "Neither announce this agent by mDNS nor look for others.")
    mdns_interface: tuple[str, ...] = _key(
        values.listed(values.ip), [], "Address of an interface for mDNS (all that have one).", "ADDR", repeatable=True
    )
    bind: str = _key(values.ip, "0.0.0.0", "Address the three mesh ports listen on (all interfaces).", "ADDR")
    advertise: str = _key(values.optional_host, "", "Address under which others reach this agent (found out).", "ADDR")
    gate_port: int = _key(values.port, GATE_PORT, "Port where newcomers knock; 0 = any free one.", "PORT")
    mesh_port: int = _key(values.port, 8947, "Port for messages between members; 0 = any free one.", "PORT")
    pub_port: int = _key(values.port, 8948, "Port where orders are published; 0 = any free one.", "PORT")
    http: Address = _key(
        values.listen_address, "127.0.0.1:8080", "Where API and page listen; port 0 = any free one.", "ADDR:PORT"
    )
    tls_cert: Path | None = _key(values.path, "", "Certificate chain (PEM) for API and page; with tls_key.", "FILE")
    tls_key: Path | None = _key(values.path, "", "Private key (PEM) for API and page; with tls_cert.", "FILE")
    auth: Literal["on", "off"] = _choice(("on", "off"), "Whether the API asks for a token; off on loopback only.")
    trust_lan: bool = _key(
        values.switch, False, "Allow auth off beyond loopback: whoever reaches the port runs commands."
    )
    priority: int = _key(
        values.integer(0, PRIORITY_MAX), 100, "The voter with the highest leads when it is fit to.", "N"
    )
    voter: Literal["auto", "never"] = _choice(("auto", "never"), "Whether this agent may hold the log and vote.")
    expect: int = _key(
        values.integer(0, MEMBERS_MAX), 0, "Form the cluster only when this many agents are seen; 0 = do not wait.", "N"
    )
    horizon_us: int = _key(
        values.duration(HORIZON_US_MIN, HORIZON_US_MAX), "3s", "How far ahead ticks are committed and armed.", "TIME"
    )
    timing: Literal["lan", "slow"] = _choice(("lan", "slow"), "Time scale of heartbeats and elections.")
    slots: int = _key(values.integer(1, SLOTS_MAX), 64, "Processes at once on this agent; the rest wait.", "N")
    run_as: tuple[str, ...] = _key(
        values.listed(values.user_name),
        [],
        "A user that jobs may run as; root only when named here.",
        "USER",
        repeatable=True,
    )
    output_max_bytes: int = _key(values.size, "10MiB", "Output kept of one execution: its head and its tail.", "SIZE")
    output_total_max_bytes: int = _key(
        values.size, "1GiB", "Output kept of all executions on this agent; the oldest goes first.", "SIZE"
    )
    output_orphan_age_us: int = _key(
        values.duration(0, ORPHAN_AGE_US_MAX),
        "7d",
        "How long output stays whose record this agent does not know.",
        "TIME",
    )
    log_level: Literal["info", "debug", "warning", "error"] = _choice(
        ("info", "debug", "warning", "error"), "The least serious events to log."
    )
    log_format: Literal["text", "json"] = _choice(("text", "json"), "How a line of the log looks.")

    def validate(self) -> None:
        """Check what several keys must agree on. Raises InvalidRequest; looks at no file and no socket."""
        if self.auth == "off" and not (values.is_loopback(self.http.host) or self.trust_lan):
            why = f"without tokens, whoever reaches {self.http} runs commands on every machine"
            raise InvalidRequest("auth", why, "keep auth on, listen on 127.0.0.1, or accept it with trust_lan")
        if (self.tls_cert is None) != (self.tls_key is None):
            missing = "tls_key" if self.tls_key is None else "tls_cert"
            raise InvalidRequest(missing, "certificate and private key go together", "give both tls_cert and tls_key")
        if self.output_total_max_bytes < self.output_max_bytes:
            why = f"{self.output_total_max_bytes} bytes for all outputs are less than output_max allows one of them"
            raise InvalidRequest("output_total_max", why, f"at least {self.output_max_bytes}, or a lower output_max")
        self._refuse_shared_ports()

    def _refuse_shared_ports(self) -> None:
        taken: dict[int, str] = {}
        ports = {"gate_port": self.gate_port, "mesh_port": self.mesh_port, "pub_port": self.pub_port}
        for name, number in (ports | {"http": self.http.port}).items():
            if number and number in taken:
                why = f"port {number} is {taken[number]}'s already"
                raise InvalidRequest(name, why, "choose another port, or 0 for any free one")
            taken[number] = name

    def warnings(self) -> list[str]:
        """What is allowed but must be said loudly at each start."""
        said = []
        if self.adopt_data_dir:
            said.append("adopt_data_dir is set: leave it out next time, or a copy of data_dir goes on unasked")
        if values.is_loopback(self.http.host):
            return said
        if self.tls_cert is None:
            said.append(
                f"API and page on {self.http} are not encrypted: tokens can be read on the way (tls_cert, tls_key)"
            )
        if self.auth == "off":
            said.append(f"auth is off on {self.http}: whoever reaches it runs commands on every machine of the cluster")
        return said


def _table() -> Iterator[Key]:
    for field in dataclasses.fields(Config):
        name = field.name
        for unit in UNITS:
            name = name.removesuffix(unit)
        yield Key(name=name, attribute=field.name, **field.metadata)


KEYS: Mapping[str, Key] = {key.name: key for key in _table()}
"""Every key by its name, in the order of the help."""


class Machine(Struct, frozen=True):
    """What the machine says where nobody says anything."""

    host_name: str
    data_dir: Path


def this_machine() -> Machine:
    """The machine and user we run on."""
    mine = ROOT_DATA_DIR if os.geteuid() == 0 else platformdirs.user_state_path("meshcron", appauthor=False)
    return Machine(socket.gethostname(), mine)


def config_files(flags: Mapping[str, object], env: Mapping[str, str]) -> list[Path]:
    """The files to hand to `load`: the one named by flag or variable, else the default one where it exists; then
    `conf.d/*.toml` beside it by name. Raises StartRefused when a named file does not exist."""
    named = values.path("--config", flags.get("config") or env.get(KEYS["config"].variable) or "")
    if named and not named.is_file():
        raise StartRefused(f"{named} is not a file: correct --config or {KEYS['config'].variable}")
    main = named or DEFAULT_FILE
    return [*([main] if main.is_file() else []), *sorted((main.parent / "conf.d").glob("*.toml"))]


def load(
    flags: Mapping[str, object], env: Mapping[str, str], files: Sequence[Path], machine: Machine | None = None
) -> Config:
    """Read and validate. `flags` are by key, None and () meaning not given; `env` is the whole environment.

    Raises InvalidRequest for an unknown key, a wrong value or values that do not go together, and StartRefused for a
    file that cannot be read.
    """
    given: dict[str, tuple[str, object]] = {}
    for each in files:
        given.update(_from_file(each))
    # A later file may leave a key empty to take back what an earlier one says.
    given = {name: found for name, found in given.items() if not _is_empty(found[1])}
    given.update(_from_env(env))
    given.update(_from_flags(flags))
    found = {KEYS[name].attribute: KEYS[name].read(place, value) for name, (place, value) in given.items()}
    machine = machine or this_machine()
    found["name"] = found.get("name") or values.agent_name("--name", machine.host_name)
    found["data_dir"] = found.get("data_dir") or machine.data_dir
    config = Config(**found)
    config.validate()
    return config


def _from_file(file: Path) -> Iterator[tuple[str, tuple[str, object]]]:
    allowed = [key.name for key in KEYS.values() if not key.flag_only]
    for name, value in _toml(file).items():
        _refuse_unknown(name, allowed, f"{file}: {name}")
        yield name, (f"{file}: {name}", value)


def _toml(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StartRefused(f"{file} cannot be read ({error.strerror}): make it readable or name another") from error
    except ValueError as error:  # TOML's own error, and bytes that are not UTF-8
        raise StartRefused(f"{file} is not TOML ({error}): correct it") from error


def _from_env(env: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, object]]]:
    names = {key.variable: key.name for key in KEYS.values()}
    for variable, value in env.items():
        if not variable.startswith("MESHCRON_") or variable in OTHER_VARIABLES:
            continue
        _refuse_unknown(variable, names, variable)
        name = names[variable]
        if not _is_empty(value):  # an empty variable is how compose files and units say "not set"
            yield name, (variable, _items(value) if KEYS[name].repeatable else value)


def _is_empty(value: object) -> bool:
    return isinstance(value, str) and not value.strip()


def _items(value: str) -> list[str]:
    return [item for item in value.split(",") if item.strip()]


def _from_flags(flags: Mapping[str, object]) -> Iterator[tuple[str, tuple[str, object]]]:
    for name, value in flags.items():
        _refuse_unknown(name, KEYS, "--" + name.replace("_", "-"))
        if value not in (None, ()):
            yield name, (KEYS[name].flag, value)


def _refuse_unknown(name: str, known: Collection[str], place: str) -> None:
    if name not in known:
        hint = values.nearest(name, known) or "`meshcron up --help` lists all keys"
        raise InvalidRequest(place, "there is no such key", hint)
