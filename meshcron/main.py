"""The one place that builds everything, in order, and closes it in reverse."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from meshcron import configured, hangup
from meshcron.api.app import Api, make_app
from meshcron.api.entrance import CONNECTIONS_MAX
from meshcron.api.inside import ask_inside
from meshcron.api.server import ApiServer, close_server, listen, serve_on, tls
from meshcron.config import Config
from meshcron.core.agent import Agent
from meshcron.core.events import Event, TagsChanged
from meshcron.core.settings import Settings
from meshcron.errors import DamagedStore, NoLeader, StartRefused
from meshcron.files import LOCAL_FILE
from meshcron.messages import Call, Endpoint
from meshcron.model import Token
from meshcron.net.complaints import Complaints
from meshcron.net.keys import FILE_NAME, CurvePair, FoundKey, find_key
from meshcron.reload import Reload
from meshcron.rows import Loaded
from meshcron.runtime import clock, markers, offline, others, set_aside
from meshcron.runtime.calls import ANSWER_BYTES_MAX, Answered
from meshcron.runtime.credentials import (
    admin_token,
    invitation,
    keep_key,
    local_token,
    new_key,
    random_id,
    refuse_new_key,
    write_private,
)
from meshcron.runtime.driver import Driver, Passing
from meshcron.runtime.elsewhere import Answering, OtherAgents, read_here
from meshcron.runtime.failpoint import failpoint
from meshcron.runtime.finish import START_OVER, Finish
from meshcron.runtime.housekeeping import Housekeeping
from meshcron.runtime.launch import RunAsPolicy
from meshcron.runtime.logs import configure_logs, print_line, to_terminal
from meshcron.runtime.mesh import Mesh
from meshcron.runtime.open_files import fill_standard, raise_limit, share
from meshcron.runtime.process import Processes
from meshcron.runtime.readiness import Readiness
from meshcron.runtime.standing import Standing
from meshcron.runtime.tasks import Tasks
from meshcron.runtime.whereabouts import prepare, withdraw
from meshcron.service import Service
from meshcron.store.damage import what_of
from meshcron.store.database import DATABASE
from meshcron.store.directory import machine_id
from meshcron.store.refusals import words
from meshcron.store.store import Store
from meshcron.store.writer import Writer
from meshcron.vocabulary import VOCABULARY

SWITCH_SECONDS = 0.0005
"""How long a thread may hold the interpreter: at the default 5 ms a busy loop turns 0.2 ms commits into 20-40 ms."""

HTTP_PARTS = 4
"""HTTP connections get one of so many parts of what may still be opened: runs and the mesh need the rest."""

START_ID_DIGITS = 12
"""48 random bits: enough to tell the starts of one node id apart."""

log = structlog.get_logger("meshcron")


def run(config: Config, reread: Callable[[], Config]) -> int:
    """Be an agent until TERM. Returns the exit code; raises StartRefused where the operator has to act. `reread` gives
    the configuration anew (HUP)."""
    sys.setswitchinterval(SWITCH_SECONDS)
    fill_standard()
    configure_logs(config.log_level, config.log_format)
    for warning in config.warnings():
        log.warning(warning)
    open_files, passing = raise_limit(), failpoint(os.environ)
    code = START_OVER
    while code == START_OVER:
        hangup.hold()  # once more: a loop that closes leaves the default
        set_aside.finish(Path(config.data_dir))
        code = asyncio.run(Process(config, reread, open_files=open_files, passing=passing).live())
    return code


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What an agent consists of, built and not yet started."""

    local: Token
    endpoint: Endpoint
    processes: Processes
    writer: Writer
    mesh: Mesh
    agent: Agent
    housekeeping: Housekeeping
    driver: Driver


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
        self._open_files = open_files
        self._passing = passing
        self._folder = Path(config.data_dir)
        self._store = Store(self._folder, machine_id())
        self._reload = Reload(config, reread)
        self._finish: Finish
        self._answering: Answering | None = None
        self._passing_secret = random_id()
        self._key: FoundKey
        self._made_key = False
        self._invitation = ""

    async def live(self) -> int:
        """Start, serve until asked to end, close in reverse.

        What an operator can mistype is refused before a byte of the directory changes but its lock's.
        """
        loop, config = asyncio.get_running_loop(), self._config
        self._finish = Finish(loop)
        loop.add_signal_handler(signal.SIGHUP, self._reload.hang_up)
        if hangup.held():
            self._reload.hang_up()
        try:
            self._store.directory.lock()
            found = self._found_key()
            secured = tls(config.tls_cert, config.tls_key) if config.tls_cert else None
            sockets = listen(config.http)
            try:
                loaded = self._store.open(lambda: markers.drawn_identity(self._folder), adopt=config.adopt_data_dir)
            except DamagedStore as damage:
                why = await self._why_it_may_go(damage, found)
                return self._start_anew(sockets, why, loud=True)
            VOCABULARY.refuse_newer_disk(loaded)
            if markers.votes_elsewhere(self._folder, loaded):
                return self._start_anew(sockets, "others vote in its cluster, which goes on without it")
            self._key = found or self._new_key()
            keep_key(self._key, self._folder)
            parts = self._build(markers.as_itself(self._folder, loaded))
            del loaded  # as large as the catalog, and this frame lives as long as the agent
            return await self._with_store(parts, sockets, secured)
        except OSError as error:
            raise StartRefused(words(error, self._folder)) from error
        finally:
            self._store.close()

    async def _why_it_may_go(self, damage: DamagedStore, found: FoundKey | None) -> str:
        """Why the damaged database can make way: its cluster goes on without it. Raises DamagedStore, with why not; the
        only voter, who has nobody to ask, touches nothing and ends at once (PROTOCOL 5)."""
        config, known = self._config, others.noted(self._folder)
        if known is None:
            raise damage
        self._store.directory.lock()  # what failed has let go of it
        if found is None:
            raise DamagedStore(f"{damage} It cannot join anew by itself: it does not have the cluster key.")
        join = [(address.host, address.port) for address in config.join]
        interfaces = None if config.no_mdns else config.mdns_interface
        leader = await others.leader_without(known, self._store.identity, found.key, join, interfaces)
        if not leader:
            raise DamagedStore(f"{damage} It cannot join anew by itself: nobody says that others lead its cluster.")
        return f"{what_of(damage)}; {leader} leads its cluster, which goes on without it"

    def _start_anew(self, sockets: Sequence[socket.socket], why: str, *, loud: bool = False) -> int:
        """Before anything else was begun."""
        for one in sockets:
            one.close()
        return self._start_over(why, loud=loud)

    async def _with_store(self, parts: Parts, sockets: Sequence[socket.socket], secured: ssl.SSLContext | None) -> int:
        """The processes and the writer first, the API last; closed in reverse."""
        parts.processes.start()
        parts.writer.start()
        parts.housekeeping.start()
        server: ApiServer | None = None
        notes = Tasks()
        try:
            self._start(parts)
            notes.start("others", others.keep_noted(self._folder, parts.agent, self._store.identity.node_id))
            standing = self._standing(parts)
            app = self._api(parts, standing)
            server = serve_on(
                app,
                sockets,
                secured,
                connections_max=share(HTTP_PARTS, CONNECTIONS_MAX),
                say=Complaints(clock.monotonic_seconds).say,
            )
            self._answer(parts, app)
            return await self._serve(parts, standing, server.port)
        finally:
            await notes.close()
            if server is not None:
                await close_server(server)
            await self._close(parts)

    # in order

    def _build(self, loaded: Loaded) -> Parts:
        identity, wall_us = self._store.identity, clock.wall_clock_us()
        local = local_token(self._folder, identity.node_id, wall_us)
        driver: Driver

        def happened(event: Event) -> None:
            driver.handle(event)

        def persisted(n: int) -> None:
            driver.persisted(n)

        processes, writer = self._processes(happened), self._writer(persisted)
        mesh = self._mesh(writer)
        endpoint = mesh.open()
        agent = Agent(self._settings(loaded, local, wall_us, endpoint), loaded)
        housekeeping = self._housekeeping(agent, processes)
        driver = Driver(
            agent,
            identity.node_id,
            writer,
            processes,
            mesh,
            now=clock.now,
            on_halt=self._finish.halt,
            on_start_over=self._finish.start_over,
            passing=self._passing,
        )
        return Parts(
            local=local,
            endpoint=endpoint,
            processes=processes,
            writer=writer,
            mesh=mesh,
            agent=agent,
            housekeeping=housekeeping,
            driver=driver,
        )

    def _start(self, parts: Parts) -> None:
        parts.driver.start()
        parts.mesh.start(parts.driver, parts.agent.tags)

        def tell(tags: dict[str, str]) -> None:
            parts.driver.handle(TagsChanged(tags))
            parts.mesh.listen_to(tags)

        self._reload.start(tell)

    async def _serve(self, parts: Parts, standing: Standing, port: int) -> int:
        """From the first answer to the last. Returns the exit code."""
        url, node_id = self._url(port), self._store.identity.node_id

        def prepared() -> Callable[[], None]:
            return prepare(self._folder, self._config.name, node_id, url, parts.endpoint, self._key)

        def reachable(show: Callable[[], None]) -> None:
            self._finish.listen()
            show()

        readiness = Readiness(self._folder, parts.agent, parts.driver, standing, parts.local)
        await readiness.wait(self._finish, lambda: reachable(prepared()))
        if not self._finish.decided:
            show = prepared()  # first: who is said to be ready finds its disk full no more
            markers.drop(self._folder)
            print_line(f"meshcron: ready at {url}/v1/ (agent {self._config.name}, data in {self._folder})")
            if self._invitation:
                print_line(self._invitation)
            reachable(show)  # last: who waits for agent.json finds done and said what a start does and says
        code = await self._finish.code()
        if self._finish.failure:
            log.error(self._finish.failure)
        return self._start_over(self._finish.why_anew) if code == START_OVER else code

    def _start_over(self, why: str, *, loud: bool = False) -> int:
        aside = set_aside.begin(self._folder, self._store.identity.node_id, why)
        if loud:
            log.error("the database is damaged: this agent joins its cluster as a new one", why=why, files=str(aside))
        return START_OVER

    async def _close(self, parts: Parts) -> None:
        markers.mark_copy(self._folder, parts.agent)
        parts.driver.close()
        await parts.mesh.close()
        parts.housekeeping.close()
        parts.processes.close()
        await asyncio.get_running_loop().run_in_executor(None, parts.writer.close)
        withdraw(self._folder)

    # one by one

    def _processes(self, happened: Callable[[Event], None]) -> Processes:
        return Processes(
            self._folder / "executions",
            happened,
            policy=RunAsPolicy(tuple(self._config.run_as)),
            output_bytes_max=self._config.output_max_bytes,
            wall_clock_us=clock.wall_clock_us,
            open_files=self._open_files,
        )

    def _writer(self, persisted: Callable[[int], None]) -> Writer:
        return Writer(
            self._store,
            on_persisted=persisted,
            on_failure=lambda error: self._finish.halt(f"the disk cannot be written: {words(error, self._folder)}"),
            on_low_disk=lambda: log.error("the disk is full: the reserve was given back; free some space"),
            hop=asyncio.get_running_loop().call_soon_threadsafe,
            clock=clock.monotonic_seconds,
        )

    def _mesh(self, writer: Writer) -> Mesh:
        identity = self._store.identity
        return Mesh(
            configured.place(self._config),
            self._key.key,
            CurvePair(identity.public_key.encode(), identity.secret_key.encode()),
            node_id=identity.node_id,
            session=self._store.start,
            database=self._folder / DATABASE,
            install=writer.install,
            serve=self._asked,
        )

    async def _asked(self, sender: str, call: Call) -> Answered:
        """Another agent asks us, for itself or for somebody at its API."""
        if self._answering is None:
            raise NoLeader("this agent is starting")
        return await self._answering(sender, call)

    def _answer(self, parts: Parts, app: Api) -> None:
        own_api = partial(ask_inside, app, most=ANSWER_BYTES_MAX)
        self._answering = Answering(parts.agent, read_here(parts.processes), own_api, self._passing_secret)

    def _housekeeping(self, agent: Agent, processes: Processes) -> Housekeeping:
        return Housekeeping(
            processes,
            self._store.tables.execution_by_id,
            holds_log=lambda: agent.holds_log,
            recovered_wall_us=lambda: agent.state.recovered[0],
            orphan_age_us=self._config.output_orphan_age_us,
            total_bytes_max=self._config.output_total_max_bytes,
            wall_clock_us=clock.wall_clock_us,
        )

    def _settings(self, loaded: Loaded, local: Token, wall_us: int, endpoint: Endpoint) -> Settings:
        identity = self._store.identity
        fresh = "cluster" not in loaded.meta
        return configured.core_settings(
            self._config,
            identity,
            session=self._store.start,
            start_id=random_id()[:START_ID_DIGITS],
            cluster=random_id(),
            tokens=(admin_token(self._folder, wall_us), local) if fresh else (),
            local=local,
            generation=markers.opened_generation(self._folder, loaded, identity.node_id),
            endpoint=endpoint,
            made_key=self._made_key,
        )

    def _standing(self, parts: Parts) -> Standing:
        node_id, started_wall_us = self._store.identity.node_id, clock.wall_clock_us()
        facts = configured.facts(self._config, node_id, self._key.key.fingerprint, started_wall_us)
        return Standing(parts.agent, facts, clock.now, parts.mesh.refused)

    def _api(self, parts: Parts, standing: Standing) -> Api:
        service = Service(
            propose=parts.driver.propose,
            catalog=parts.agent.state,
            tables=self._store.tables,
            cluster=standing,
            read_output=read_here(parts.processes),
        )
        settings = configured.api_settings(self._config, self._store.identity.node_id, self._passing_secret)
        own_token = (self._folder / LOCAL_FILE).read_text(encoding="ascii").strip()
        return make_app(
            service,
            settings,
            wall_clock_us=clock.wall_clock_us,
            monotonic=clock.monotonic_seconds,
            elsewhere=OtherAgents(
                parts.agent,
                settings.node_id,
                parts.mesh.calls,
                own_token,
                auth_on=settings.auth_on,
                index_on_disk=lambda: parts.driver.index_on_disk,
            ),
        )

    def _url(self, port: int) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self._config.http.host, self._config.http.host)
        return f"{'https' if self._config.tls_cert else 'http'}://{host}:{port}"

    def _found_key(self) -> FoundKey | None:
        """The key this machine holds; None where a new one may be made. Raises StartRefused."""
        found = find_key(self._config.key_file, self._folder, os.environ)
        if found is None:
            refuse_new_key(self._folder, joins=bool(self._config.join))
        return found

    def _new_key(self) -> FoundKey:
        """A first start without one works at once."""
        key, file = new_key(), self._folder / FILE_NAME
        write_private(file, key.text + "\n")
        self._made_key = True
        self._invitation = invitation(key, self._folder, to_terminal=to_terminal())
        return FoundKey(key, str(file))


def recover(config: Config) -> str:
    """Offline: go on alone (runtime/offline.py). Returns what to tell; raises StartRefused."""
    configure_logs(config.log_level, config.log_format)
    interfaces = None if config.no_mdns else config.mdns_interface
    return offline.recover(Path(config.data_dir), config.key_file, config.join, interfaces)


def salvage(config: Config) -> str:
    """Offline: go on with what is whole (runtime/offline.py). Returns what to tell; raises StartRefused."""
    return offline.salvage(Path(config.data_dir))
