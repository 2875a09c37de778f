"""One table of keys: flag beats variable beats file beats default, and whatever is wrong is refused with the remedy."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from meshcron.config import GATE_PORT, KEYS, OTHER_VARIABLES, Config, Machine, config_files, load
from meshcron.errors import InvalidRequest, StartRefused
from meshcron.values import Address

MACHINE = Machine("host1", Path("/state"))
SHIPPED = Path(__file__).parents[2] / "conf" / "meshcron.toml"


def refused(flags: dict[str, object] | None = None, env: dict[str, str] | None = None, *files: Path) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        load(flags or {}, env or {}, files, MACHINE)
    return caught.value


def write(folder: Path, toml: str) -> Path:
    file = folder / "meshcron.toml"
    file.write_text(toml)
    return file


def test_nothing_given_is_the_defaults() -> None:
    """An agent started without a word: the machine's name and state folder, loopback API, tokens asked for."""
    config = load({}, {}, [], MACHINE)
    assert config == Config(name="host1", data_dir=Path("/state"))
    assert (config.http, config.auth, config.slots, config.horizon_us) == (
        Address("127.0.0.1", 8080),
        "on",
        64,
        3_000_000,
    )
    assert (config.gate_port, config.mesh_port, config.pub_port) == (8946, 8947, 8948)
    assert (config.tag, config.join, config.run_as, config.output_max_bytes) == ({}, (), (), 10 * 2**20)


def test_shipped_file_is_the_defaults() -> None:
    """conf/meshcron.toml shows every key that a file may hold, each with its default."""
    shown = re.findall(r"^([a-z_]+) = ", SHIPPED.read_text(), re.MULTILINE)
    assert shown == [key.name for key in KEYS.values() if not key.flag_only]
    assert load({}, {}, [SHIPPED], MACHINE) == load({}, {}, [], MACHINE)


def test_shipped_file_explains_every_key() -> None:
    """Each key stands under a comment; the words of a choice are all named there."""
    comment = ""
    for line in SHIPPED.read_text().splitlines():
        if line.startswith("#"):
            comment += line
        elif " = " in line:
            name = line.split(" = ")[0]
            assert len(comment) > 10, name
            assert all(word in comment for word in KEYS[name].choices), name
        else:
            comment = ""


def test_flag_beats_variable_beats_file(tmp_path: Path) -> None:
    """Three places, three values; taking the stronger away uncovers the weaker."""
    file = write(tmp_path, "slots = 1\npriority = 1\nexpect = 1\n")
    config = load({"slots": 3}, {"MESHCRON_SLOTS": "2", "MESHCRON_PRIORITY": "2"}, [file], MACHINE)
    assert (config.slots, config.priority, config.expect) == (3, 2, 1)


def test_later_file_wins_and_a_list_replaces_a_list(tmp_path: Path) -> None:
    """conf.d comes after the main file; lists are not merged behind the reader's back."""
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    first.write_text('run_as = ["a", "b"]\nslots = 5\n')
    second.write_text('run_as = ["c"]\n')
    config = load({}, {}, [first, second], MACHINE)
    assert (config.run_as, config.slots) == (("c",), 5)


def test_flags_not_given_leave_the_rest_alone() -> None:
    """The command line hands over every flag; None and () mean that nobody typed it."""
    assert load(dict.fromkeys(KEYS), {"MESHCRON_SLOTS": "7"}, [], MACHINE).slots == 7
    assert load({"tag": ()}, {"MESHCRON_TAG": "role=web,zone=a"}, [], MACHINE).tag == {"role": "web", "zone": "a"}


def test_empty_variable_is_not_given() -> None:
    """Compose files and units write empty variables where nothing is set."""
    assert load({}, {"MESHCRON_SLOTS": "", "MESHCRON_NAME": " "}, [], MACHINE) == load({}, {}, [], MACHINE)


@pytest.mark.parametrize("empty", ["", " "])
def test_a_key_left_empty_keeps_its_default(tmp_path: Path, empty: str) -> None:
    """Each key that a file may hold, as conf/meshcron.toml says; also where an earlier file had a value for it."""
    lines = [f'{key.name} = "{empty}"\n' for key in KEYS.values() if not key.flag_only]
    earlier, file = tmp_path / "earlier.toml", write(tmp_path, "".join(lines))
    earlier.write_text('slots = 5\nname = "earlier"\nrun_as = ["a"]\n')
    assert load({}, {}, [earlier, file], MACHINE) == load({}, {}, [], MACHINE)


def test_shipped_file_takes_tags_as_a_table(tmp_path: Path) -> None:
    """As the comment in it says: at its end, once its own line is gone."""
    text = SHIPPED.read_text()
    assert text.count("tag = []\n") == 1
    file = write(tmp_path, text.replace("tag = []\n", "") + '[tag]\nrole = "web"\n')
    assert load({}, {}, [file], MACHINE).tag == {"role": "web"}


def test_other_variables_of_ours_are_no_keys() -> None:
    """The key, the address for the command line and what a job sees may stand in an agent's environment."""
    assert load({}, dict.fromkeys(OTHER_VARIABLES, "x"), [], MACHINE) == load({}, {}, [], MACHINE)
    assert not OTHER_VARIABLES & {key.variable for key in KEYS.values()}


def test_table_and_fields_name_the_same() -> None:
    """A key's field is its name, with the unit where there is one."""
    assert [key.attribute for key in KEYS.values()] == [field.name for field in dataclasses.fields(Config)]
    assert KEYS["horizon"].attribute == "horizon_us"
    assert (KEYS["gate_port"].flag, KEYS["gate_port"].variable) == ("--gate-port", "MESHCRON_GATE_PORT")
    assert [name for name, key in KEYS.items() if key.switch] == ["adopt_data_dir", "no_mdns", "trust_lan"]
    assert [name for name, key in KEYS.items() if key.repeatable] == ["tag", "join", "mdns_interface", "run_as"]
    assert all(key.help.endswith(".") and (key.switch or key.metavar) for key in KEYS.values())


@pytest.mark.parametrize("name", KEYS)
def test_default_as_written_is_the_default(name: str) -> None:
    """What the help shows and what an agent gets cannot differ."""
    key = KEYS[name]
    if key.written_default != "":
        config = load({}, {}, [], MACHINE)
        assert getattr(config, key.attribute) == key.read("here", key.written_default)


def test_repeated_flags_make_a_list() -> None:
    """--tag and --join as often as wanted; a join without a port means the usual gate."""
    config = load({"tag": ("role=web", "zone=a"), "join": ("10.0.0.2", "db.lan:7000", "[::1]:9")}, {}, [], MACHINE)
    assert config.tag == {"role": "web", "zone": "a"}
    assert config.join == (Address("10.0.0.2", GATE_PORT), Address("db.lan", 7000), Address("::1", 9))


def test_tags_as_a_table(tmp_path: Path) -> None:
    """In a file tags may be a table."""
    assert load({}, {}, [write(tmp_path, '[tag]\nrole = "web"\n')], MACHINE).tag == {"role": "web"}


@pytest.mark.parametrize(
    ("flags", "env", "toml", "place", "hint"),
    [
        ({"gate_prot": "1"}, {}, "", "--gate-prot", "gate_port"),
        ({}, {"MESHCRON_GATEPORT": "1"}, "", "MESHCRON_GATEPORT", "MESHCRON_GATE_PORT"),
        ({}, {}, "gate-port = 1", "meshcron.toml: gate-port", "gate_port"),
        ({}, {}, "zzzzzz = 1", "meshcron.toml: zzzzzz", "meshcron up --help"),
        ({}, {}, 'config = "x"', "meshcron.toml: config", "meshcron up --help"),
        ({"auth": "of"}, {}, "", "--auth", "did you mean off"),
        ({}, {"MESHCRON_TIMING": "lam"}, "", "MESHCRON_TIMING", "did you mean lan"),
        ({}, {}, "slots = 0", "meshcron.toml: slots", "1 to 10000"),
    ],
)
def test_wrong_key_or_value_names_place_and_remedy(
    tmp_path: Path, flags: dict[str, object], env: dict[str, str], toml: str, place: str, hint: str
) -> None:
    """The error says where the slip stands and what was probably meant."""
    error = refused(flags, env, write(tmp_path, toml))
    assert error.field.endswith(place)
    assert hint in error.hint


def test_auth_off_is_refused_where_others_reach_it() -> None:
    """Without tokens only loopback, or a LAN that somebody trusts in so many words; then it is said loudly."""
    open_http: dict[str, object] = {"auth": "off", "http": "0.0.0.0:8080"}
    error = refused(open_http)
    assert (error.field, "trust_lan" in error.hint) == ("auth", True)
    for loopback in ("127.0.0.1:0", "[::1]:8080", "localhost:1", "127.9.9.9:1"):
        assert load({"auth": "off", "http": loopback}, {}, [], MACHINE).warnings() == []
    trusted = load(open_http | {"trust_lan": True}, {}, [], MACHINE)
    assert any("auth is off" in said for said in trusted.warnings())


def test_plain_http_beyond_loopback_is_said_loudly() -> None:
    """It is allowed, and each start says what it means; with a certificate there is nothing to say."""
    assert "not encrypted" in load({"http": "0.0.0.0:80"}, {}, [], MACHINE).warnings()[0]
    assert load({"http": "0.0.0.0:80", "tls_cert": "/c", "tls_key": "/k"}, {}, [], MACHINE).warnings() == []
    assert load({}, {}, [], MACHINE).warnings() == []


def test_certificate_and_key_go_together() -> None:
    """One without the other names the one that is missing."""
    assert refused({"tls_cert": "/c.pem"}).field == "tls_key"
    assert refused({"tls_key": "/k.pem"}).field == "tls_cert"


def test_all_outputs_together_are_at_least_one() -> None:
    """A cap on all that is below the cap on one would keep none whole."""
    assert refused({"output_max": "2GiB"}).field == "output_total_max"
    assert load({"output_max": "2GiB", "output_total_max": "2GiB"}, {}, [], MACHINE).output_total_max_bytes == 2**31


def test_adopting_is_for_once(tmp_path: Path) -> None:
    """No file may hold it, and an agent that is always told to adopt says so at each start."""
    assert refused({}, {}, write(tmp_path, "adopt_data_dir = true")).why == "there is no such key"
    assert "adopt_data_dir" in load({"adopt_data_dir": True}, {}, [], MACHINE).warnings()[0]


def test_two_services_on_one_port_are_refused() -> None:
    """Any-free ports never collide, named ones may not."""
    assert refused({"mesh_port": "8946"}).field == "mesh_port"
    assert refused({"http": "127.0.0.1:8948"}).field == "http"
    assert load({"gate_port": 0, "mesh_port": 0, "pub_port": 0, "http": "127.0.0.1:0"}, {}, [], MACHINE).pub_port == 0


def test_host_name_that_is_no_name_is_refused() -> None:
    """A machine with an impossible host name is told to pass --name."""
    with pytest.raises(InvalidRequest) as caught:
        load({}, {}, [], Machine("bad host", Path("/state")))
    assert caught.value.field == "--name"
    assert load({"name": "good"}, {}, [], Machine("bad host", Path("/state"))).name == "good"


def test_named_file_must_exist_the_default_one_need_not(tmp_path: Path) -> None:
    """A misspelt --config is no reason to start with something else."""
    with pytest.raises(StartRefused, match="--config"):
        config_files({"config": str(tmp_path / "no.toml")}, {})
    with pytest.raises(StartRefused, match="MESHCRON_CONFIG"):
        config_files({}, {"MESHCRON_CONFIG": str(tmp_path / "no.toml")})


def test_conf_d_follows_the_file_by_name(tmp_path: Path) -> None:
    """conf.d lies beside the file that was named; only *.toml counts."""
    main = write(tmp_path, "")
    parts = tmp_path / "conf.d"
    parts.mkdir()
    for name in ("20-b.toml", "10-a.toml", "notes.txt"):
        (parts / name).write_text("")
    assert config_files({"config": str(main)}, {}) == [main, parts / "10-a.toml", parts / "20-b.toml"]


@pytest.mark.parametrize("content", [b"slots = ", b"\xff\xfe", b"slots = 1\nslots = 2\n"])
def test_broken_file_refuses_the_start(tmp_path: Path, content: bytes) -> None:
    """Neither half a file nor bytes are a configuration; the error names the file."""
    file = tmp_path / "meshcron.toml"
    file.write_bytes(content)
    with pytest.raises(StartRefused, match=r"meshcron\.toml is not TOML"):
        load({}, {}, [file], MACHINE)


def test_missing_file_refuses_the_start(tmp_path: Path) -> None:
    """A file that vanished between finding and reading."""
    with pytest.raises(StartRefused, match="cannot be read"):
        load({}, {}, [tmp_path / "gone.toml"], MACHINE)


def test_config_is_frozen() -> None:
    """Nobody changes the configuration of a running agent in place."""
    config = load({}, {}, [], MACHINE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.slots = 1  # type: ignore[misc]
