"""The one place that builds everything, in order, and closes it in reverse."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import os
import shlex
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import click
import structlog
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from meshcron import __version__
from meshcron.api.app import Api, make_app
from meshcron.api.inside import ask_inside
from meshcron.api.server import ApiServer, serve_on
from meshcron.api.settings import ApiSettings, allowed_hosts
from meshcron.commands import PutToken
from meshcron.config import KEYS, Config
from meshcron.core.agent import Agent
from meshcron.core.events import Event, Proposed, TagsChanged
from meshcron.core.settings import Settings
from meshcron.core.timing import LAN, SLOW
from meshcron.errors import MeshcronError, NoLeader, StartRefused
from meshcron.messages import Call, Endpoint, GateMessage, Welcome, generation_number
from meshcron.model import SECOND_US, Token
from meshcron.net.keys import FILE_NAME, ClusterKey, CurvePair, find_key, new_curve_pair
from meshcron.rows import Loaded
from meshcron.runtime import clock
from meshcron.runtime.calls import ANSWER_BYTES_MAX, Answered
from meshcron.runtime.credentials import (
    ADMIN_FILE,
    LOCAL_FILE,
    admin_token,
    local_token,
    new_key,
    random_id,
    write_private,
)
from meshcron.runtime.driver import Driver, Passing
from meshcron.runtime.elsewhere import Answering, OtherAgents, OwnApi, ReadOutput
from meshcron.runtime.failpoint import failpoint
from meshcron.runtime.housekeeping import Housekeeping
from meshcron.runtime.launch import RunAsPolicy
from meshcron.runtime.logs import configure_logs
from meshcron.runtime.mesh import Mesh, Place
from meshcron.runtime.open_files import raise_limit
from meshcron.runtime.process import Processes
from meshcron.runtime.recovery import Held, Inquiry, held, why_not
from meshcron.runtime.standing import Facts, Standing, machine_facts
from meshcron.service import OutputChunk, Service
from meshcron.store.database import DATABASE
from meshcron.store.directory import COPY_FILE, NODE_FILE, DataDirectory, Identity, machine_id
from meshcron.store.log import LogBase
from meshcron.store.refusals import words
from meshcron.store.salvage import salvage as salvage_files
from meshcron.store.store import HARD_STATE, Store
from meshcron.store.writer import Writer
from meshcron.values import Address
from meshcron.vocabulary import VOCABULARY

SWITCH_SECONDS = 0.0005
"""How long a thread may hold the interpreter: at the default 5 ms a busy loop turns 0.2 ms commits into 20-40 ms."""

RECOVERED_FILE = "recovered"
"""Stands in the data directory from a recovery, a salvage or an adoption until the agent has recorded what was lost."""

ALONE = "alone"
"""Its first word after a recovery: the others that vote are gone for good."""

ADOPTED = "adopted"
"""Its first word after an adoption; the second is the node id that the directory had."""

RELOADED = frozenset({"tag"})
"""The keys that HUP reads again; all others need a start."""

READY_SECONDS = 30.0
"""A first answer takes well under a second; whoever waits longer has a disk that does not answer."""

START_ID_DIGITS = 12
"""48 random bits: enough to tell the starts of one node id apart."""

START_OVER = -1
"""Not an exit code: begin again as a newcomer."""

ANNOUNCE_SECONDS = 1.0
"""An agent that waits for others for so long is there to be asked, though it is not ready."""

READY_LOOK_SECONDS = 0.002
"""Between two looks whether it is."""

log = structlog.get_logger("meshcron")


def run(config: Config, reread: Callable[[], Config]) -> int:
    """Be an agent until TERM. Returns the exit code; raises StartRefused where the operator has to act. `reread` gives
    the configuration anew (HUP)."""
    sys.setswitchinterval(SWITCH_SECONDS)
    configure_logs(config.log_level, config.log_format)
    for warning in config.warnings():
        log.warning(warning)
    open_files, passing = raise_limit(), failpoint(os.environ)
    while (code := asyncio.run(Process(config, reread, open_files=open_files, passing=passing).live())) == START_OVER:
        set_aside(Path(config.data_dir))
    return code


class Process:
    """One agent's process, from its data directory to its listening sockets."""

    def __init__(
        self,
        config: Config,
        reread: Callable[[], Config],
        *,
        open_files: int | None = None,
        passing: Passing | None = None,
    ) -> None:
        """`open_files`: the soft limit on open files that jobs get; None = the agent's own. `passing`: the driver's."""
        self._config = config
        self._reread = reread
        self._open_files = open_files
        self._passing = passing
        self._driver: Driver | None = None
        self._mesh: Mesh | None = None
        self._answering: Answering | None = None
        self._passing_secret = random_id()
        self._hung_up = False
        self._invitation = ""
        self._made_key = False
        self._folder = Path(config.data_dir)
        self._store = Store(self._folder, machine_id())
        self._ending: asyncio.Future[int]
        self._failure = ""

    async def live(self) -> int:
        """Start, serve until asked to end, close in reverse.

        What an operator can mistype is refused before a byte of the directory changes but its lock's.
        """
        loop = asyncio.get_running_loop()
        self._ending = loop.create_future()
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        try:
            self._store.directory.lock()
            find_key(self._config.key_file, self._folder, os.environ)
            secured, sockets = tls(self._config), listen(self._config.http)
            loaded = self._store.open(self._new_identity, adopt=self._config.adopt_data_dir)
            VOCABULARY.refuse_newer_disk(loaded)
            if votes_elsewhere(self._folder, loaded):
                log.warning("others vote in the cluster of this directory: its database is set aside, to join anew")
                for one in sockets:
                    one.close()
                return START_OVER
            return await self._with_store(loaded, sockets, secured)
        except OSError as error:
            raise StartRefused(words(error, self._folder)) from error
        finally:
            self._store.close()

    async def _with_store(
        self, loaded: Loaded, sockets: Sequence[socket.socket], secured: ssl.SSLContext | None
    ) -> int:
        loop = asyncio.get_running_loop()
        key = self._key()
        identity, wall_us = self._store.identity, clock.wall_clock_us()
        local = local_token(self._folder, identity.node_id, wall_us)
        config = self._config
        pair = CurvePair(identity.public_key.encode(), identity.secret_key.encode())
        mesh: Mesh
        driver: Driver

        def happened(event: Event) -> None:
            driver.handle(event)

        def persisted(n: int) -> None:
            driver.persisted(n)

        processes = Processes(
            self._folder / "executions",
            happened,
            policy=RunAsPolicy(tuple(self._config.run_as)),
            output_bytes_max=self._config.output_max_bytes,
            wall_clock_us=clock.wall_clock_us,
            open_files=self._open_files,
        )
        writer = Writer(
            self._store,
            on_persisted=persisted,
            on_failure=lambda error: self._halt(f"the disk cannot be written: {words(error, self._folder)}"),
            on_low_disk=lambda: log.error("the disk is full: the reserve was given back; free some space"),
            hop=loop.call_soon_threadsafe,
            clock=clock.monotonic_seconds,
        )
        mesh = Mesh(
            place(config),
            key,
            pair,
            node_id=identity.node_id,
            session=self._store.start,
            database=self._folder / DATABASE,
            install=writer.install,
            serve=self._serve,
        )
        endpoint = mesh.open()
        agent = Agent(self._settings(loaded, local, wall_us, pair.public.decode(), endpoint), loaded)
        housekeeping = self._housekeeping(agent, processes)
        driver = Driver(
            agent,
            identity.node_id,
            writer,
            processes,
            mesh,
            now=clock.now,
            on_halt=self._halt,
            on_start_over=self._start_over,
            passing=self._passing,
        )
        processes.start()
        writer.start()
        housekeeping.start()
        server: ApiServer | None = None
        try:
            driver.start()
            self._driver, self._mesh = driver, mesh
            mesh.start(driver, agent.tags)
            if self._hung_up:
                self._reload(driver)
            standing, app = self._api(agent, driver, processes, key, mesh)
            server = serve_on(app, sockets, secured)
            self._answering = Answering(agent, read_output(processes), own_api(app), self._passing_secret)
            port = server.port
            await self._ready(agent, driver, standing, local, lambda: self._announce(port, endpoint))
            drop_markers(self._folder)
            self._say_ready(server.port)
            code = await self._ending
            if self._failure:
                log.error(self._failure)
            return code
        finally:
            if server is not None:
                await close_server(server)
            mark_copy(self._folder, agent)
            driver.close()
            await mesh.close()
            housekeeping.close()
            processes.close()
            await loop.run_in_executor(None, writer.close)
            (self._folder / "agent.json").unlink(missing_ok=True)

    async def _serve(self, sender: str, call: Call) -> Answered:
        """Another agent asks us, for itself or for somebody at its API."""
        if self._answering is None:
            raise NoLeader("this agent is starting")
        return await self._answering(sender, call)

    def _housekeeping(self, agent: Agent, processes: Processes) -> Housekeeping:
        return Housekeeping(
            processes,
            self._store.tables.execution_by_id,
            recovered_wall_us=lambda: agent.state.recovered_wall_us,
            orphan_age_us=self._config.output_orphan_age_us,
            total_bytes_max=self._config.output_total_max_bytes,
            wall_clock_us=clock.wall_clock_us,
        )

    def _settings(self, loaded: Loaded, local: Token, wall_us: int, public_key: str, endpoint: Endpoint) -> Settings:
        config = self._config
        fresh = "cluster" not in loaded.meta
        tokens = (admin_token(self._folder, wall_us), local) if fresh else ()
        return Settings(
            node_id=self._store.identity.node_id,
            name=self._config.name,
            session=self._store.start,
            start_id=random_id()[:START_ID_DIGITS],
            tags=dict(self._config.tag),
            facts=machine_facts(self._config.name),
            slots=self._config.slots,
            horizon_us=self._config.horizon_us,
            cluster=random_id(),
            tokens=tokens,
            generation=self._opened_generation(loaded),
            public_key=public_key,
            endpoint=endpoint,
            local_token=local,
            priority=config.priority,
            eligible=config.voter == "auto",
            form_at_once=self._made_key and not config.join,
            expect=config.expect,
            timing=SLOW if config.timing == "slow" else LAN,
            version=__version__,
            vocabulary=VOCABULARY,
        )

    def _opened_generation(self, loaded: Loaded) -> int:
        if "cluster" not in loaded.meta or not (self._folder / RECOVERED_FILE).exists():
            return 0
        return held(loaded, self._store.identity.node_id).next_generation

    def _api(
        self, agent: Agent, driver: Driver, processes: Processes, key: ClusterKey, mesh: Mesh
    ) -> tuple[Standing, Api]:
        config = self._config
        facts = Facts(
            node_id=self._store.identity.node_id,
            name=config.name,
            fingerprint=key.fingerprint,
            slots=config.slots,
            machine=machine_facts(config.name),
            started_wall_us=clock.wall_clock_us(),
            warnings=tuple(config.warnings()),
        )
        standing = Standing(agent, facts, clock.now, mesh.refused)

        service = Service(
            propose=driver.propose,
            catalog=agent.state,
            tables=self._store.tables,
            cluster=standing,
            read_output=read_output(processes),
        )
        names = {"localhost", "127.0.0.1", "::1", config.http.host, config.advertise, config.name}
        settings = ApiSettings(
            agent=config.name,
            allowed_hosts=allowed_hosts(name for name in names if name),
            node_id=self._store.identity.node_id,
            auth_on=config.auth == "on",
            trust_lan=config.trust_lan,
            passing_secret=self._passing_secret,
            access_log=config.log_level == "debug",
        )
        own_token = (self._folder / LOCAL_FILE).read_text(encoding="ascii").strip()
        app = make_app(
            service,
            settings,
            wall_clock_us=clock.wall_clock_us,
            monotonic=clock.monotonic_seconds,
            elsewhere=OtherAgents(agent, settings.node_id, mesh.calls, own_token, auth_on=settings.auth_on),
        )
        return standing, app

    async def _ready(
        self, agent: Agent, driver: Driver, standing: Standing, local: Token, announce: Callable[[], None]
    ) -> None:
        """Until writes are taken and the cluster knows this agent's local token. One that stands alone waits for its
        disk only; a member waits for the others, however long that takes, and can be asked meanwhile what it waits for.
        Raises StartRefused."""
        began = clock.monotonic_seconds()
        deadline = began + READY_SECONDS
        asked = announced = False
        while not self._ending.done():
            if not announced and clock.monotonic_seconds() > began + ANNOUNCE_SECONDS and not agent.stands_alone:
                announce()
                announced = True
            if not standing.why_not_ready():
                if agent.state.token_by_hash(local.sha256) is not None or not agent.leading:
                    self._drop_unused_token(agent)
                    if not announced:
                        announce()
                    return
                if not asked:
                    driver.handle(Proposed("local token", PutToken(local)))
                    asked = True
            if clock.monotonic_seconds() > deadline and agent.stands_alone:
                raise StartRefused(f"{self._folder}: its disk did not answer within {READY_SECONDS:g} s; look at it")
            await asyncio.sleep(READY_LOOK_SECONDS)
        if self._failure:
            raise StartRefused(self._failure)

    def _drop_unused_token(self, agent: Agent) -> None:
        """A newcomer that joined a cluster has made an admin token for nothing: it opens no door."""
        file = self._folder / ADMIN_FILE
        if file.exists() and agent.holds_log:
            digest = hashlib.sha256(file.read_text(encoding="ascii").strip().encode()).hexdigest()
            if agent.state.token_by_hash(digest) is None:
                file.unlink()

    def _url(self, port: int) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self._config.http.host, self._config.http.host)
        return f"{'https' if self._config.tls_cert else 'http'}://{host}:{port}"

    def _announce(self, port: int, endpoint: Endpoint) -> None:
        """Where this agent is, for whoever looks from this machine."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._end, 0)
        loop.add_signal_handler(signal.SIGINT, self._end, 0)
        record: Mapping[str, object] = {
            "pid": os.getpid(),
            "name": self._config.name,
            "node_id": self._store.identity.node_id,
            "url": self._url(port),
            "gate_port": endpoint.gate_port,
            "mesh_port": endpoint.mesh_port,
            "pub_port": endpoint.pub_port,
        }
        write_private(self._folder / "agent.json", json.dumps(record, indent=2) + "\n")

    def _say_ready(self, port: int) -> None:
        if self._ending.done():
            return
        click.echo(f"meshcron: ready at {self._url(port)}/v1/ (agent {self._config.name}, data in {self._folder})")
        if self._invitation:
            click.echo(self._invitation)

    def _start_over(self, why: str) -> None:
        """This agent's cluster is dissolved: its database is set aside, the next start is a newcomer's."""
        if not self._ending.done():
            log.info("starting over", why=why)
            self._ending.set_result(START_OVER)

    def _end(self, code: int) -> None:
        if self._ending.done():
            os._exit(code)  # a second TERM: now
        self._ending.set_result(code)

    def _hang_up(self) -> None:
        if self._driver is None:
            self._hung_up = True  # once there is an agent to tell
        else:
            self._reload(self._driver)

    def _reload(self, driver: Driver) -> None:
        """Read the configuration again. What is wrong with it is said, and changes nothing."""
        try:
            config = self._reread()
        except MeshcronError as error:
            log.warning("the configuration is wrong, the old one holds", why=str(error))
            return
        driver.handle(TagsChanged(dict(config.tag)))
        if self._mesh is not None:
            self._mesh.listen_to(dict(config.tag))
        waiting = [
            key.name for key in KEYS.values() if key.name not in RELOADED and self._differs(config, key.attribute)
        ]
        self._config = dataclasses.replace(self._config, tag=config.tag)
        tags = ", ".join(f"{name}={value}" for name, value in sorted(config.tag.items()))
        more = {"need_a_restart": ", ".join(waiting)} if waiting else {}
        log.info("the configuration was read again", tags=tags, **more)

    def _differs(self, config: Config, attribute: str) -> bool:
        return bool(getattr(config, attribute) != getattr(self._config, attribute))

    def _halt(self, why: str) -> None:
        if not self._ending.done():
            self._failure = why
            self._ending.set_result(1)

    def _new_identity(self) -> Identity:
        """Drawn at a first start, and where a directory is adopted. What that one holds may be behind, as after a
        salvage; and its old identity may live on elsewhere."""
        if (file := self._folder / NODE_FILE).exists():
            begin_recovery(self._folder, str(json.loads(file.read_text()).get("identity", {}).get("node_id", "")))
        return new_identity()

    def _key(self) -> ClusterKey:
        """The key this machine holds, or one made now: a first start without one works at once."""
        found = find_key(self._config.key_file, self._folder, os.environ)
        if found is not None:
            return found.key
        key = new_key()
        self._made_key = True
        write_private(self._folder / FILE_NAME, key.text + "\n")
        self._invitation = invitation(key, self._folder, to_terminal=sys.stdout.isatty())
        return key


def votes_elsewhere(folder: Path, loaded: Loaded) -> bool:
    """Whether an adopted or salvaged directory is that of a cluster in which others vote: going on with it here would
    be a second cluster with the same jobs."""
    marker = folder / RECOVERED_FILE
    if not marker.exists():
        return False
    word, _, former = marker.read_text(encoding="ascii").strip().partition(" ")
    if word == ALONE:
        return False
    voters = {member.node_id for member in loaded.members if member.voter}
    return bool(voters - {former}) if word == ADOPTED else len(voters) > 1


def set_aside(folder: Path) -> None:
    """The database of a cluster that is dissolved, or goes on without this agent, makes way for the one it joins. The
    node id goes with it: under it this agent has voted, and it must not vote again without that memory."""
    label = clock.wall_clock_us() // SECOND_US
    directory = DataDirectory(folder, machine_id())
    directory.lock()
    try:
        directory.rename(new_identity())
        for file in folder.iterdir():
            if file.name.startswith(DATABASE) or file.name in {HARD_STATE, ADMIN_FILE, LOCAL_FILE}:
                file.rename(file.with_name(f"dissolved-{label}-{file.name}"))
    finally:
        directory.close()
    (folder / RECOVERED_FILE).unlink(missing_ok=True)  # last: until then the next start sets aside what is left


def mark_copy(folder: Path, agent: Agent) -> None:
    """Remember that the others know this directory for a copy: --adopt-data-dir then counts, wherever it lies."""
    if agent.is_copy:
        (folder / COPY_FILE).touch(mode=0o600)


def drop_markers(folder: Path) -> None:
    """The agent is what it seemed to be: what an earlier start left for this one is done."""
    for name in (RECOVERED_FILE, COPY_FILE):
        (folder / name).unlink(missing_ok=True)


def own_api(app: Api) -> OwnApi:
    """This agent's API, for what others pass on to it."""
    return partial(ask_inside, app, most=ANSWER_BYTES_MAX)


def read_output(processes: Processes) -> ReadOutput:
    """How output that lies on this machine is read."""

    def read(execution_id: str, offset: int, most: int) -> OutputChunk:
        data, next_offset, ended = processes.read_output(execution_id, offset, most)
        return OutputChunk(data, next_offset, ended)

    return read


def place(config: Config) -> Place:
    """Where this agent listens and looks."""
    return Place(
        bind=config.bind,
        advertise=config.advertise,
        gate_port=config.gate_port,
        mesh_port=config.mesh_port,
        pub_port=config.pub_port,
        join=config.join,
        mdns=not config.no_mdns,
        mdns_interfaces=config.mdns_interface,
    )


def new_identity() -> Identity:
    """A random node id and CURVE pair."""
    pair = new_curve_pair()
    return Identity(
        node_id=random_id(),
        public_key=pair.public.decode(),
        secret_key=pair.secret.decode(),
        created_wall_us=clock.wall_clock_us(),
    )


def invitation(key: ClusterKey, folder: Path, *, to_terminal: bool) -> str:
    """What a second machine types. The key itself is for the eyes of a person at a terminal: a file or a journal would
    keep it."""
    if to_terminal:
        return f"on another machine: MESHCRON_KEY={key.text} meshcron up"
    show = f"meshcron key show --secret --data-dir {shlex.quote(str(folder))}"
    return f"on another machine: MESHCRON_KEY=mk1-... meshcron up; this machine's key: {show}"


def begin_recovery(folder: Path, former: str) -> None:
    """The agent of this folder, whose node id was `former`, will go on under a new one, and has to record what may be
    lost. Raises OSError."""
    write_private(folder / RECOVERED_FILE, f"{ADOPTED} {former}\n")
    (folder / LOCAL_FILE).unlink(missing_ok=True)  # it was the old node id's


def listen(http: Address) -> list[socket.socket]:
    """The sockets of API and page; who connects now is answered once the agent runs. Raises StartRefused."""
    try:
        return bind_sockets(http.port, http.host)
    except OSError as error:
        raise StartRefused(
            f"cannot listen on {http}: {error.strerror}; end what uses it or choose another with --http"
        ) from None


def tls(config: Config) -> ssl.SSLContext | None:
    """TLS for API and page, where a certificate is given."""
    if not config.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise StartRefused(f"tls_cert {config.tls_cert}: cannot be used: {error}") from None
    return context


async def close_server(server: HTTPServer) -> None:
    """Take no more requests, end those under way."""
    server.stop()
    await server.close_all_connections()


def recover(config: Config) -> str:
    """Offline: the majority of the voters is gone for good, the agent of this directory goes on alone with all that it
    holds. Returns what to tell the operator; raises StartRefused with the remedy while others can go on."""
    configure_logs(config.log_level, config.log_format)
    folder = Path(config.data_dir)
    refuse_unused(folder)
    if (folder / RECOVERED_FILE).exists():
        raise StartRefused(f'{folder}: a recovery has begun already; start the agent with "meshcron up"')
    store = Store(folder, machine_id())
    try:
        store.directory.lock()
        ours = held(store.open(new_identity), store.identity.node_id)
        key = find_key(config.key_file, folder, os.environ)
        if key is None:
            raise StartRefused(f"{folder}: without the cluster key nobody can be asked; give it with --key-file")
        answers = asyncio.run(ask_survivors(config, ours, store, key.key))
        if why := why_not(ours, answers):
            raise StartRefused(f"nothing was changed: {why}")
        write_private(folder / RECOVERED_FILE, ALONE + "\n")
    except OSError as error:
        raise StartRefused(words(error, folder)) from error
    finally:
        store.close()
    return "\n".join(_recovered_lines(ours, answers))


async def ask_survivors(config: Config, ours: Held, store: Store, key: ClusterKey) -> list[GateMessage]:
    """What all that can be reached say of their cluster."""
    inquiry = Inquiry(ours, store.identity.public_key, store.start, key)
    join = [(address.host, address.port) for address in config.join]
    return await inquiry.ask(join, None if config.no_mdns else config.mdns_interface)


def _recovered_lines(ours: Held, answers: Sequence[GateMessage]) -> list[str]:
    reached = {ours.node_id, *(one.profile.node_id for one in answers if isinstance(one, Welcome))}
    silent = sorted(name for node_id, name in ours.names.items() if node_id not in reached)
    number = generation_number(ours.next_generation)
    lines = [f"generation {number}: the cluster goes on from this agent alone, with its log up to entry {ours.last[1]}"]
    if silent:
        lines.append(f"not reached: {', '.join(silent)}; if one of them still works, this was a mistake")
    lines.append("what is open, and each tick since the last one decided, will be recorded as lost")
    lines.append('start the agent with "meshcron up"; other agents then join it as new ones, and vote')
    return lines


def refuse_unused(folder: Path) -> None:
    """Raises StartRefused where no agent has lived."""
    if not (folder / NODE_FILE).exists():
        raise StartRefused(f"{folder}: no agent has ever run here; give its folder with --data-dir")


def salvage(config: Config) -> str:
    """Offline: set a damaged database aside and go on with what is whole, under a new node id. Returns what to tell the
    operator; raises StartRefused where an agent uses the directory or too little is left."""
    folder = Path(config.data_dir)
    directory = DataDirectory(folder, machine_id())
    refuse_unused(folder)
    directory.lock()
    try:
        label = str(clock.wall_clock_us() // SECOND_US)
        # First: a crash or a full disk in between must not let the agent go on as if nothing were lost.
        write_private(folder / RECOVERED_FILE, label + "\n")
        try:
            report = salvage_files(folder, label, applied_entry)
        except StartRefused:
            (folder / RECOVERED_FILE).unlink()
            raise
        directory.rename(new_identity())
        (folder / LOCAL_FILE).unlink(missing_ok=True)  # it was the old node id's
    except OSError as error:
        raise StartRefused(words(error, folder)) from error
    finally:
        directory.close()
    lines = [f"salvaged {folder}: the log goes on after entry {report.last.index}"]
    lines.append(f"at most {report.entries_lost_max} acknowledged entries are gone; open runs are recorded as lost")
    if report.incomplete:
        lines.append(f"rows are missing from: {', '.join(report.incomplete)}")
    lines.append(f"the damaged files stay beside it: {', '.join(report.set_aside)}")
    lines.append('start the agent again with "meshcron up"')
    return "\n".join(lines)


def applied_entry(meta: dict[str, str]) -> LogBase:
    """The entry that the catalog's rows stand for. Raises KeyError, ValueError."""
    index, term, crc = meta["applied"].split()
    return LogBase(int(index), int(term), int(crc))
