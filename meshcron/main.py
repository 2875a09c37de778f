"""The one place that builds everything, in order, and closes it in reverse."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import structlog
from tornado.httpserver import HTTPServer

from meshcron.api.app import make_app
from meshcron.api.server import ApiServer, serve
from meshcron.api.settings import ApiSettings, allowed_hosts
from meshcron.commands import PutToken
from meshcron.config import Config
from meshcron.core.agent import Agent, Settings
from meshcron.core.events import Event
from meshcron.errors import StartRefused
from meshcron.model import SECOND_US, Token
from meshcron.net.keys import FILE_NAME, ClusterKey, find_key, new_curve_pair
from meshcron.rows import Loaded
from meshcron.runtime import clock
from meshcron.runtime.credentials import LOCAL_FILE, admin_token, local_token, new_key, random_id, write_private
from meshcron.runtime.driver import Driver
from meshcron.runtime.launch import RunAsPolicy
from meshcron.runtime.process import Processes
from meshcron.runtime.standing import Facts, Standing, machine_facts
from meshcron.service import OutputChunk, Service
from meshcron.store.directory import NODE_FILE, DataDirectory, Identity, machine_id
from meshcron.store.log import LogBase
from meshcron.store.salvage import salvage as salvage_files
from meshcron.store.store import Store
from meshcron.store.writer import Writer

SWITCH_SECONDS = 0.0005
"""How long a thread may hold the interpreter: at the default 5 ms a busy loop turns 0.2 ms commits into 20-40 ms."""

RECOVERED_FILE = "recovered"
"""Stands in the data directory from a salvage until the agent has recorded what was lost."""

READY_SECONDS = 30.0
"""A first answer takes well under a second; whoever waits longer has a disk that does not answer."""

log = structlog.get_logger("meshcron")


def run(config: Config) -> int:
    """Be an agent until TERM. Returns the exit code; raises StartRefused where the operator has to act."""
    sys.setswitchinterval(SWITCH_SECONDS)
    configure_logs(config)
    for warning in config.warnings():
        log.warning(warning)
    return asyncio.run(Process(config).live())


def configure_logs(config: Config) -> None:
    """Log lines to standard error, as text or JSON."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if config.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(config.log_level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


class Process:
    """One agent's process, from its data directory to its listening sockets."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._folder = Path(config.data_dir)
        self._store = Store(self._folder, machine_id())
        self._ending: asyncio.Future[int]
        self._failure = ""

    async def live(self) -> int:
        """Start, serve until asked to end, close in reverse."""
        loop = asyncio.get_running_loop()
        self._ending = loop.create_future()
        loaded = self._store.open(new_identity)
        try:
            return await self._with_store(loaded)
        finally:
            self._store.close()

    async def _with_store(self, loaded: Loaded) -> int:
        loop = asyncio.get_running_loop()
        key = cluster_key(self._config, self._folder)
        identity, wall_us = self._store.identity, clock.wall_clock_us()
        local = local_token(self._folder, identity.node_id, wall_us)
        agent = Agent(self._settings(loaded, local, wall_us), loaded)
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
        )
        writer = Writer(
            self._store,
            on_persisted=persisted,
            on_failure=lambda error: self._halt(f"the disk cannot be written: {error}"),
            on_low_disk=lambda: log.error("the disk is full: the reserve was given back; free some space"),
            hop=loop.call_soon_threadsafe,
            clock=clock.monotonic_seconds,
        )
        driver = Driver(agent, identity.node_id, writer, processes, now=clock.now, on_halt=self._halt)
        processes.start()
        writer.start()
        server: ApiServer | None = None
        try:
            driver.start()
            standing, server = self._serve(agent, driver, processes, key)
            await self._ready(agent, driver, standing, local)
            (self._folder / RECOVERED_FILE).unlink(missing_ok=True)
            self._announce(server.port)
            return await self._ending
        finally:
            if server is not None:
                await close_server(server)
            driver.close()
            processes.close()
            await loop.run_in_executor(None, writer.close)
            (self._folder / "agent.json").unlink(missing_ok=True)

    def _settings(self, loaded: Loaded, local: Token, wall_us: int) -> Settings:
        fresh = "cluster" not in loaded.meta
        tokens = (admin_token(self._folder, wall_us), local) if fresh else ()
        return Settings(
            node_id=self._store.identity.node_id,
            name=self._config.name,
            session=self._store.start,
            tags=dict(self._config.tag),
            facts=machine_facts(self._config.name),
            slots=self._config.slots,
            horizon_us=self._config.horizon_us,
            cluster=random_id(),
            tokens=tokens,
            recovering=(self._folder / RECOVERED_FILE).exists(),
        )

    def _serve(self, agent: Agent, driver: Driver, processes: Processes, key: ClusterKey) -> tuple[Standing, ApiServer]:
        config = self._config
        facts = Facts(
            node_id=self._store.identity.node_id,
            name=config.name,
            fingerprint=key.fingerprint,
            address=config.advertise or config.http.host,
            port=config.mesh_port,
            tags=dict(config.tag),
            machine=machine_facts(config.name),
            started_wall_us=clock.wall_clock_us(),
            warnings=tuple(config.warnings()),
        )
        standing = Standing(agent, facts, clock.now)

        def read_output(execution_id: str, offset: int, most: int) -> OutputChunk:
            data, next_offset, ended = processes.read_output(execution_id, offset, most)
            return OutputChunk(data, next_offset, ended)

        service = Service(
            propose=driver.propose,
            catalog=agent.state,
            tables=self._store.tables,
            cluster=standing,
            read_output=read_output,
        )
        names = {"localhost", "127.0.0.1", "::1", config.http.host, config.advertise, config.name}
        settings = ApiSettings(
            agent=config.name,
            allowed_hosts=allowed_hosts(name for name in names if name),
            node_id=self._store.identity.node_id,
            auth_on=config.auth == "on",
            trust_lan=config.trust_lan,
            access_log=config.log_level == "debug",
        )
        app = make_app(service, settings, wall_clock_us=clock.wall_clock_us, monotonic=clock.monotonic_seconds)
        try:
            server = serve(app, config.http.host, config.http.port, tls(config))
        except OSError as error:
            raise StartRefused(
                f"cannot listen on {config.http.host}:{config.http.port}: {error.strerror}; "
                "end what uses it or choose another with --http"
            ) from None
        return standing, server

    async def _ready(self, agent: Agent, driver: Driver, standing: Standing, local: Token) -> None:
        """Until this agent can take writes; its local token may be new to the cluster."""
        deadline = clock.monotonic_seconds() + READY_SECONDS
        while standing.why_not_ready() and not self._ending.done():
            if clock.monotonic_seconds() > deadline:
                raise StartRefused(f"the disk did not answer within {READY_SECONDS:g} s")
            await asyncio.sleep(0.002)
        if not self._ending.done() and agent.state.token_by_hash(local.sha256) is None:
            await driver.propose(PutToken(local))

    def _announce(self, port: int) -> None:
        config = self._config
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(config.http.host, config.http.host)
        scheme = "https" if config.tls_cert else "http"
        url = f"{scheme}://{host}:{port}"
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._end, 0)
        loop.add_signal_handler(signal.SIGINT, self._end, 0)
        record: Mapping[str, object] = {
            "pid": os.getpid(),
            "name": config.name,
            "node_id": self._store.identity.node_id,
            "url": url,
            "gate_port": 0,
            "mesh_port": 0,
            "pub_port": 0,
        }
        write_private(self._folder / "agent.json", json.dumps(record, indent=2) + "\n")
        click.echo(f"meshcron: ready at {url}/v1/ (agent {config.name}, data in {self._folder})")

    def _end(self, code: int) -> None:
        if self._ending.done():
            os._exit(code)  # a second TERM: now
        self._ending.set_result(code)

    def _halt(self, why: str) -> None:
        if not self._ending.done():
            log.error(why)
            self._ending.set_result(1)


def new_identity() -> Identity:
    """A random node id and CURVE pair."""
    pair = new_curve_pair()
    return Identity(
        node_id=random_id(),
        public_key=pair.public.decode(),
        secret_key=pair.secret.decode(),
        created_wall_us=clock.wall_clock_us(),
    )


def cluster_key(config: Config, folder: Path) -> ClusterKey:
    """The key this machine holds, or one made now: a first start without one works at once."""
    found = find_key(config.key_file, folder, os.environ)
    if found is not None:
        return found.key
    key = new_key()
    write_private(folder / FILE_NAME, key.text + "\n")
    return key


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


def salvage(config: Config) -> str:
    """Offline: set a damaged database aside and go on with what is whole, under a new node id. Returns what to tell the
    operator; raises StartRefused where an agent uses the directory or too little is left."""
    folder = Path(config.data_dir)
    directory = DataDirectory(folder, machine_id())
    if not (folder / NODE_FILE).exists():
        raise StartRefused(f"{folder}: no agent has ever run here; give its folder with --data-dir")
    directory.lock()
    try:
        label = str(clock.wall_clock_us() // SECOND_US)
        report = salvage_files(folder, label, applied_entry)
        directory.rename(new_identity())
        (folder / LOCAL_FILE).unlink(missing_ok=True)  # it was the old node id's
        write_private(folder / RECOVERED_FILE, label + "\n")
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
