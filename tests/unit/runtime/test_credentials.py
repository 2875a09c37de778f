"""The tokens and the key in the data directory: made once, private; of a token only its hash leaves it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from meshcron.errors import StartRefused
from meshcron.net.keys import ClusterKey, FoundKey, read_key
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

NODE = "0123456789abcdef" * 2
OTHER = "f" * 32


def test_the_admin_token_is_made_once(tmp_path: Path) -> None:
    """Its file holds the secret, the token its SHA-256; a second start reads the same."""
    first = admin_token(tmp_path, 7)
    secret = (tmp_path / "admin.token").read_text().strip()
    assert len(secret) >= 32
    assert first.sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert (first.name, first.role, first.node_id, first.created_wall_us) == ("admin", "admin", "", 7)
    assert admin_token(tmp_path, 9).sha256 == first.sha256
    assert (tmp_path / "admin.token").read_text().strip() == secret


def test_the_local_token_belongs_to_its_agent(tmp_path: Path) -> None:
    """Named by it, valid only there; the tokens of two agents meet in no id, no name, no secret."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    ours, theirs = local_token(folders[0], NODE, 7), local_token(folders[1], OTHER, 7)
    assert (ours.node_id, theirs.node_id) == (NODE, OTHER)
    assert not {ours.id, ours.name, ours.sha256} & {theirs.id, theirs.name, theirs.sha256}
    assert local_token(folders[0], NODE, 7) == ours


def test_two_machines_never_make_the_same_secret(tmp_path: Path) -> None:
    """Also where they were given the same folder's name."""
    hashes = set()
    for n in range(20):
        folder = tmp_path / str(n)
        folder.mkdir()
        hashes.add(admin_token(folder, 7).sha256)
    assert len(hashes) == 20


def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    """0600, and nothing is left beside them."""
    admin_token(tmp_path, 7)
    local_token(tmp_path, NODE, 7)
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert modes == {"admin.token": 0o600, "local.token": 0o600}


@pytest.mark.parametrize("content", ["", "\n", "  \n"])
def test_an_empty_file_is_filled(tmp_path: Path, content: str) -> None:
    """A crash between making it and writing it leaves no agent without a token, nor one that anybody can guess."""
    (tmp_path / "admin.token").write_text(content)
    token = admin_token(tmp_path, 7)
    assert token.sha256 != hashlib.sha256(b"").hexdigest()
    assert hashlib.sha256((tmp_path / "admin.token").read_text().strip().encode()).hexdigest() == token.sha256


def test_a_secret_put_there_by_a_person_is_taken(tmp_path: Path) -> None:
    """Blanks around it do not count."""
    (tmp_path / "admin.token").write_text("  my own secret\n")
    assert admin_token(tmp_path, 7).sha256 == hashlib.sha256(b"my own secret").hexdigest()


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """The old content or the new, never half of it; readable by its owner alone, whatever the old one was."""
    file = tmp_path / "agent.json"
    file.write_text("old and much longer than the new one")
    file.chmod(0o644)
    write_private(file, "new")
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_ids_and_keys_are_random() -> None:
    """128 bits in hex; a key with its own fingerprint each time."""
    ids = {random_id() for _ in range(50)}
    assert len(ids) == 50
    assert {len(bytes.fromhex(one)) for one in ids} == {16}
    assert len({new_key().text for _ in range(10)}) == 10


def test_the_invitation_shows_the_key_to_people_only(tmp_path: Path) -> None:
    """At a terminal it can be typed as it stands; in a file stands how to get at the key."""
    key = ClusterKey(bytes(range(100, 116)) + bytes(range(16)))
    assert invitation(key, tmp_path, to_terminal=True) == f"on another machine: MESHCRON_KEY={key.text} meshcron up"
    told = invitation(key, tmp_path / "a b", to_terminal=False)
    assert key.text not in told
    assert told.endswith(f"meshcron key show --secret --data-dir '{tmp_path}/a b'")


def test_a_key_out_of_the_environment_is_kept(tmp_path: Path) -> None:
    """For its owner alone, where none is kept; one that lies in a file already is not copied."""
    key, file = new_key(), tmp_path / "cluster.key"
    keep_key(FoundKey(key, "/etc/meshcron/cluster.key"), tmp_path)
    assert not file.exists()
    keep_key(FoundKey(key, "MESHCRON_KEY"), tmp_path)
    assert read_key(file) == key
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_kept_key_stays_as_it_is(tmp_path: Path) -> None:
    """The same one is no news; of another one, or of what is none, a line says that what was given counts."""
    key, file = new_key(), tmp_path / "cluster.key"
    for kept, told in ((key.text, 0), (new_key().text, 1), ("mk1-", 1)):
        file.write_text(kept)
        with capture_logs() as lines:
            keep_key(FoundKey(key, "MESHCRON_KEY"), tmp_path)
        assert file.read_text() == kept
        assert [(one["given"], one["kept"]) for one in lines] == [("MESHCRON_KEY", str(file))] * told
        assert key.text not in str(lines)


@pytest.mark.parametrize(
    ("joins", "left", "why"),
    [(True, "lock", "`join` names"), (False, "local.token", "is that of"), (False, "node.json.old-1", "is that of")],
)
def test_a_key_that_others_have_is_not_made_anew(tmp_path: Path, joins: bool, left: str, why: str) -> None:
    """Nor for an agent that has had one, salvaged or adopted since; a first start that died before it may go on. The
    refusal says where the right one is to be had, and to be put."""
    (tmp_path / "node.json").touch()
    refuse_new_key(tmp_path, joins=False)
    (tmp_path / left).touch()
    with pytest.raises(StartRefused, match=why) as refused:
        refuse_new_key(tmp_path, joins=joins)
    for remedy in ("/etc/meshcron/cluster.key (mode 0600)", "MESHCRON_KEY", "meshcron key show --secret"):
        assert remedy in str(refused.value)
