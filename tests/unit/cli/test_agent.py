"""up and recover: what of the command line reaches the agent, which itself is a stand-in here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from meshcron.config import KEYS, Config
from meshcron.errors import DamagedStore, StartRefused


class StandIn(ModuleType):
    """In place of meshcron.main: remembers the configuration, ends as told."""

    def __init__(self) -> None:
        super().__init__("meshcron.main")
        self.configs: list[Config] = []
        self.ending: int | Exception = 0
        self.reread: Callable[[], Config]

    def run(self, config: Config, reread: Callable[[], Config]) -> int:
        self.configs.append(config)
        self.reread = reread
        if isinstance(self.ending, Exception):
            raise self.ending
        return self.ending

    def recover(self, config: Config) -> str:
        self.configs.append(config)
        if isinstance(self.ending, Exception):
            raise self.ending
        return "generation 1"

    def salvage(self, config: Config) -> str:
        self.configs.append(config)
        if isinstance(self.ending, Exception):
            raise self.ending
        return "12 entries kept, 3 set aside"


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "meshcron.main", stand_in)
    for variable in ("MESHCRON_URL", "MESHCRON_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    return stand_in


def test_every_key_has_its_flag(cli: Any) -> None:
    """The flags are the table's, each with its line of help."""
    text = cli("up", "--help").stdout
    assert [key.flag for key in KEYS.values() if key.flag not in text] == []


def test_flags_reach_the_agent(cli: Any, main: StandIn, tmp_path: Path) -> None:
    """Each kind of flag: a text, a number, a repeated one, a switch."""
    result = cli(
        *("up", "--name", "n1", "--data-dir", str(tmp_path), "--gate-port", "0", "--tag", "role=web", "--tag", "a=b"),
        *("--join", "10.0.0.1", "--join", "h.example:99", "--no-mdns", "--http", "127.0.0.1:0", "--horizon", "2s"),
    )
    assert (result.exit_code, result.stderr) == (0, "")
    (config,) = main.configs
    assert (config.name, config.data_dir, config.gate_port) == ("n1", tmp_path, 0)
    assert config.tag == {"role": "web", "a": "b"}
    assert [str(each) for each in config.join] == ["10.0.0.1:8946", "h.example:99"]
    assert config.no_mdns is True
    assert config.trust_lan is False
    assert config.horizon_us == 2_000_000


def test_the_alias(cli: Any, main: StandIn, tmp_path: Path) -> None:
    """`meshcron agent` is `meshcron up`."""
    assert cli("agent", "--data-dir", str(tmp_path)).exit_code == 0
    assert len(main.configs) == 1


def test_a_flag_beats_the_environment_beats_the_file(cli: Any, main: StandIn, tmp_path: Path) -> None:
    """As config.py says; the command line takes nothing away from it."""
    file = tmp_path / "m.toml"
    file.write_text("slots = 1\npriority = 1\nexpect = 1\n", encoding="utf-8")
    env = {"MESHCRON_SLOTS": "2", "MESHCRON_PRIORITY": "2", "MESHCRON_CONFIG": str(file)}
    assert cli("up", "--slots", "3", env=env).exit_code == 0
    (config,) = main.configs
    assert (config.slots, config.priority, config.expect) == (3, 2, 1)


def test_the_configuration_can_be_read_again(cli: Any, main: StandIn, tmp_path: Path) -> None:
    """For HUP: the files as they are by then, under the flags as they were given."""
    file = tmp_path / "m.toml"
    file.write_text('tag = ["role=web"]\nslots = 1\n', encoding="utf-8")
    assert cli("up", "--slots", "3", "--config", str(file)).exit_code == 0
    file.write_text('tag = ["role=db"]\nslots = 2\n', encoding="utf-8")
    config = main.reread()
    assert (config.tag, config.slots) == ({"role": "db"}, 3)
    file.write_text("tag = 5 5\n", encoding="utf-8")
    with pytest.raises(StartRefused, match="not TOML"):
        main.reread()


@pytest.mark.parametrize(
    ("args", "env", "words"),
    [
        (["--gate-port", "x"], {}, "--gate-port"),
        (["--auth", "off", "--http", "0.0.0.0:80"], {}, "auth"),
        ([], {"MESHCRON_GATE_PROT": "1"}, "MESHCRON_GATE_PORT"),
        (["--config", "/does/not/exist.toml"], {}, "/does/not/exist.toml"),
    ],
)
def test_what_config_refuses_is_one_line(cli: Any, main: StandIn, args: list[str], env: Any, words: str) -> None:
    """A wrong value, values that do not go together, a misspelt variable, a missing file: no agent, one line."""
    result = cli("up", *args, env=env)
    assert result.exit_code in {1, 2}
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert main.configs == []


@pytest.mark.parametrize(("ending", "code"), [(0, 0), (1, 1), (StartRefused("port 8946 is taken; choose another"), 1)])
def test_up_ends_as_the_agent_ends(cli: Any, main: StandIn, ending: Any, code: int) -> None:
    """The agent's exit code is the command's; a refused start is a line with its remedy."""
    main.ending = ending
    result = cli("up")
    assert result.exit_code == code
    expected = f"meshcron: {ending}\n" if isinstance(ending, Exception) else ""
    assert result.stderr == expected


def test_recover_asks_as_the_agent_would(cli: Any, main: StandIn, tmp_path: Path) -> None:
    """It gets the key and the addresses, and prints what was done."""
    flags = ("--key-file", str(tmp_path / "key"), "--join", "10.0.0.1", "--no-mdns")
    result = cli("recover", "--data-dir", str(tmp_path), *flags)
    assert (result.exit_code, result.stdout) == (0, "generation 1\n")
    [config] = main.configs
    assert ([one.host for one in config.join], config.no_mdns, config.data_dir) == (["10.0.0.1"], True, tmp_path)


def test_a_recovery_that_is_refused(cli: Any, main: StandIn) -> None:
    """The others live: code 1 and the line that says what to do instead."""
    main.ending = StartRefused("nothing was changed: two leads; start this agent")
    result = cli("recover")
    assert (result.exit_code, result.stderr) == (1, "meshcron: nothing was changed: two leads; start this agent\n")


def test_salvage_prints_what_was_done(cli: Any, main: StandIn, tmp_path: Path) -> None:
    """What was kept and set aside, in the agent's own words."""
    result = cli("recover", "--salvage", "--data-dir", str(tmp_path))
    assert (result.exit_code, result.stdout) == (0, "12 entries kept, 3 set aside\n")
    assert main.configs[0].data_dir == tmp_path


def test_recover_and_salvage_as_json(cli: Any, main: StandIn, tmp_path: Path) -> None:
    """For programs: what a person is told, line by line."""
    for flag, line in {"--salvage": "12 entries kept, 3 set aside", "--no-mdns": "generation 1"}.items():
        result = cli("recover", flag, "--data-dir", str(tmp_path), "--json")
        assert json.loads(result.stdout) == {"report": [line]}


def test_a_salvage_that_is_refused(cli: Any, main: StandIn) -> None:
    """An agent still runs there: code 1 and the line that says so."""
    main.ending = DamagedStore("an agent runs on this data directory; stop it first")
    result = cli("recover", "--salvage")
    assert result.exit_code == 1
    assert result.stderr == "meshcron: an agent runs on this data directory; stop it first\n"
