"""Damaged files (FAULTS 24): the agent says so and touches nothing; `meshcron recover --salvage` goes on with what is
whole, and what may be missing is on record as lost."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.integration.agent.real_agent import RealAgent, contents, meshcron, refusal, until_there, wait_for
from tests.integration.agent.ticks import Ticks

WAL_HEADER_BYTES = 32
FRAME_BYTES = 24 + 4096
"""A frame's header and its page: https://www.sqlite.org/fileformat2.html#walformat."""

SALTS = slice(16, 24)
"""Of the `-wal`: they change when it begins anew."""

WRITE_TRIES = 3
"""When nothing is written for a second, as on a busy machine, it may begin anew."""


def in_an_unused_page(database: Path) -> int:
    """An offset in the page of a table that is seldom written: others may have a newer copy in the -wal, and then this
    one does not count."""
    with closing(sqlite3.connect(f"file:{database}?immutable=1", uri=True)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'calls'").fetchone()
    return int(page) * 4096 - 100


def flip(file: Path, offset: int, bit: int = 0) -> None:
    """Flip one bit. Twice is as if nothing had happened."""
    with file.open("r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)[0]
        stream.seek(offset)
        stream.write(bytes([byte ^ 1 << bit]))


def refused_as_damaged(agent: RealAgent, file: Path) -> str:
    """Refused, naming the file and the way out, with every byte left as it was."""
    before = contents(agent.folder)
    line = refusal(agent.folder)
    assert contents(agent.folder) == before
    assert line.startswith(f"{file}: ")
    assert "Nothing was changed. `meshcron recover --salvage` sets the damaged files aside" in line
    return line


def salvaged(agent: RealAgent) -> str:
    """Salvage and go on: the damaged files stay aside as they were. Returns what the operator was told."""
    before = {name: digest for name, digest in contents(agent.folder).items() if "/" not in name}
    done = meshcron("recover", "--salvage", "--data-dir", agent.folder)
    assert (done.returncode, done.stderr) == (0, ""), done
    after = contents(agent.folder)
    named = re.search(r"the damaged files stay beside it: (.*)", done.stdout)
    assert named
    aside = {name.rpartition(".damaged-")[0]: after[name] for name in named[1].split(", ")}
    assert aside == {name: before[name] for name in aside}
    assert {"database", "hard_state"} <= aside.keys()
    agent.start()
    return done.stdout


def most_lost(said: str) -> int:
    """How many acknowledged entries a salvage says may be gone."""
    found = re.search(r"at most (\d+) acknowledged entries are gone", said)
    assert found
    return int(found[1])


def forty_jobs(agent: RealAgent, file: Path) -> tuple[Ticks, list[tuple[str, int]], set[bytes]]:
    """Written while the ticks go on, and then killed. Each job with the size of the `-wal` once it was stored, and
    the salts that this had: more than one where it began anew."""
    wal, ticks = agent.folder / "database-wal", Ticks(agent, file)
    ticks.begin()
    acknowledged, salts = [], set()
    for number in range(40):
        agent.add(f"job_{number:02}")
        acknowledged.append((f"job_{number:02}", wal.stat().st_size))
        salts.add(wal.read_bytes()[SALTS])
    ticks.wait_for_more(2)
    agent.kill()
    return ticks, acknowledged, salts | {wal.read_bytes()[SALTS]}


def test_a_flipped_bit_in_the_middle_of_the_wal(agent: RealAgent, tmp_path: Path) -> None:
    """SQLite would go on silently without all that follows. Here every job acknowledged before the damage is kept, the
    operator is told how many entries are not, and each tick since has its record: none doubled, none missing."""
    wal = agent.folder / "database-wal"
    ticks, acknowledged, salts = forty_jobs(agent, tmp_path / "ticks-1")
    for number in range(2, WRITE_TRIES + 1):
        if len(salts) > 1:
            shutil.rmtree(agent.folder)
            agent.start()
            ticks, acknowledged, salts = forty_jobs(agent, tmp_path / f"ticks-{number}")
    assert len(salts) == 1, "the -wal began anew meanwhile: this would prove nothing"
    frame = (acknowledged[20][1] - WAL_HEADER_BYTES) // FRAME_BYTES
    kept = [name for name, size in acknowledged if size <= WAL_HEADER_BYTES + frame * FRAME_BYTES]
    flip(wal, WAL_HEADER_BYTES + frame * FRAME_BYTES + 24 + 2000, bit=3)
    for _ in range(2):  # trying again changes nothing either
        assert f"frame {frame + 1} is bad" in refused_as_damaged(agent, wal)
    said = salvaged(agent)
    jobs = [name for name in agent.jobs() if name != "tick"]
    assert jobs[: len(kept)] == kept
    assert jobs == [name for name, _ in acknowledged][: len(jobs)], "kept is a beginning, without gaps"
    assert 40 - len(jobs) <= most_lost(said)
    ticks.wait_for_more(2)
    states = ticks.check()
    lost = {tick for tick, state in states.items() if state == "lost"}
    assert lost
    assert lost >= {tick for tick in ticks.starts() if min(lost) <= tick <= max(lost)}
    assert set(states.values()) == {"success", "lost"}
    agent.kill()
    agent.start()  # what was recovered once is not recovered again
    ticks.wait_for_more(1)
    again = ticks.check()
    assert {tick: again[tick] for tick in states} == states


def test_a_run_that_waited_at_the_damage_is_not_started_twice(agent: RealAgent, tmp_path: Path) -> None:
    """Of two runs one waited in the queue; it ran in the part that is lost. Both are lost on record, neither runs again
    (P1)."""
    wal, starts = agent.folder / "database-wal", tmp_path / "starts"
    command = f'echo "$MESHCRON_RUN" >> {starts}; {until_there(tmp_path / "go")}'
    agent.add("turns", command, concurrency="queue")
    for _ in range(2):
        agent.call("POST", "/v1/jobs/turns/run")
    wait_for(starts.exists, "the first runs")
    agent.add("before")
    frame = (wal.stat().st_size - WAL_HEADER_BYTES) // FRAME_BYTES
    agent.add("behind")
    (tmp_path / "go").touch()
    wait_for(lambda: [one["status"] for one in agent.executions("turns")] == ["success"] * 2, "both have run")
    agent.kill()
    flip(wal, WAL_HEADER_BYTES + frame * FRAME_BYTES + 1000)
    refused_as_damaged(agent, wal)
    salvaged(agent)
    assert agent.jobs() == ["before", "turns"]
    wait_for(lambda: all(one["status"] != "running" for one in agent.executions("turns")[1:]), "the second is decided")
    assert [one["status"] for one in agent.executions("turns")] == ["lost", "lost"]
    assert len(set(starts.read_text().split())) == len(starts.read_text().split()) == 2


def test_every_part_of_the_wal_is_watched(agent: RealAgent) -> None:
    """The head of the file, the head and the page of a frame, early and late."""
    for number in range(10):
        agent.add(f"job_{number}")
    agent.kill()
    wal = agent.folder / "database-wal"
    frames = (wal.stat().st_size - WAL_HEADER_BYTES) // FRAME_BYTES
    starts = [WAL_HEADER_BYTES + frame * FRAME_BYTES for frame in (0, frames // 3, frames // 2)]
    for offset in (0, 17, 30, *(start + at for start, at in zip(starts, (0, 20, 4100), strict=True))):
        flip(wal, offset)
        refused_as_damaged(agent, wal)
        flip(wal, offset)
    agent.start()
    assert len(agent.jobs()) == 10


def test_flipped_bits_in_the_pages_of_the_database(agent: RealAgent) -> None:
    """Each page that counts has its check sum: the first, one of a seldom written table, the last."""
    for number in range(10):
        agent.add(f"job_{number}")
    assert agent.stop() == 0
    database = agent.folder / "database"
    for offset in (1000, in_an_unused_page(database), database.stat().st_size - 100):
        flip(database, offset)
        line = refused_as_damaged(agent, database)
        assert f"page {offset // 4096 + 1} is not as written" in line
        flip(database, offset)
    agent.start()
    assert len(agent.jobs()) == 10


def test_a_page_of_jobs_is_damaged(agent: RealAgent) -> None:
    """The page that holds a job is gone for good; it is said which table lost rows, and the agent goes on."""
    for number in range(200):
        agent.add(f"job_{number:03}", command=f"echo {number:03} {'x' * 200}")
    assert agent.stop() == 0
    database = agent.folder / "database"
    flip(database, database.read_bytes().index(b"echo 100 "))
    refused_as_damaged(agent, database)
    said = salvaged(agent)
    jobs = agent.jobs()
    if "rows are missing from" in said:
        assert len(jobs) < 200
    assert {"job_000", "job_199"} <= set(jobs)
    agent.add("after")
    agent.kill()
    agent.start()
    assert agent.jobs() == sorted([*jobs, "after"])


def test_nothing_to_salvage(agent: RealAgent, tmp_path: Path) -> None:
    """No agent ever ran there; or all of it is gone: refused in one line, and nothing changed."""
    done = meshcron("recover", "--salvage", "--data-dir", tmp_path / "nowhere")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no agent has ever run here" in done.stderr
    assert not (tmp_path / "nowhere").exists()
    agent.stop()
    (agent.folder / "database").write_bytes(b"\0" * 100_000)
    before = contents(agent.folder)
    done = meshcron("recover", "--salvage", "--data-dir", agent.folder)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done
    assert "defect" not in done.stderr
    assert contents(agent.folder) == before
