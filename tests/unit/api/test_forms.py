"""Bodies become jobs, runs and tokens, in both dialects; whatever is wrong names its field."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcron.api import forms, views
from meshcron.api.bodies import parse_object
from meshcron.errors import InvalidRequest, TooLarge
from meshcron.model import SECOND_US, History, Job, Limits
from tests.unit.api.bad_input import BAD_FIELDS, BAD_RUNS, BAD_TOKENS

SEED = {
    "name": "cron_job",
    "schedule": "0 30 * * * *",
    "command": "/usr/bin/date",
    "owner": "John Doe",
    "owner_email": "john@doe.com",
    "run_as_user": "johndoe",
    "disabled": False,
    "tags": {"role": "web"},
}
"""The reference's own example."""

LATER = {
    "name": "cron_job",
    "schedule": "0 30 * * * *",
    "owner": "John Doe",
    "owner_email": "john@doe.com",
    "disabled": False,
    "tags": {"role": "web"},
    "executor": "shell",
    "executor_config": {"command": "/usr/bin/date", "shell": "true", "su": "johndoe"},
}
"""The same job as Dkron 2-4 writes it."""

REFERENCE_JOB = Job(
    name="cron_job",
    schedule="0 30 * * * *",
    command="/usr/bin/date",
    owner="John Doe",
    owner_email="john@doe.com",
    run_as_user="johndoe",
    tags={"role": "web"},
)

FULL_JOB = Job(
    name="full",
    schedule="@every 1h30m",
    command="echo a\necho b",
    displayname="Full",
    timezone="Europe/Berlin",
    owner="o",
    owner_email="a@b.c",
    run_as_user="bob",
    disabled=True,
    tags={"role": "web:2"},
    metadata={"team": "x"},
    processors={"files": {"forward": "true"}},
    executor_config={"project": "p"},
    concurrency="forbid",
    on_lost="rerun",
    retries=3,
    retry_delay_us=10 * SECOND_US,
    retry_backoff=2.0,
    retry_on="other",
    timeout_us=90 * SECOND_US,
    env={"A": "1", "B": "2"},
    cwd="/tmp",
    shell=False,
    payload="héllo\n",
    success_exit_codes=(0, 3),
    nice=5,
    limits=Limits(memory_bytes=1024, processes=7),
    catch_up="all",
    start_deadline_us=60 * SECOND_US,
    parent_jobs=("a", "b"),
    when="always",
    starts_at_wall_us=10 * SECOND_US,
    expires_at_wall_us=20 * SECOND_US,
    ephemeral=True,
    history=History(runs=5, days=6),
)
"""A job with no field at its default."""


def shown(job: Job) -> dict[str, Any]:
    """A job as GET answers it, counters and all, read back from the bytes."""
    page = views.definition(job) | {"success_count": 3, "last_success": "0001-01-01T100:00:00Z", "status": "x"}
    return parse_object(views.encode(page))


def test_both_dialects_are_one_job() -> None:
    """Posted one way or the other it is the same job (API.md, point 9)."""
    assert forms.job_form(dict(SEED)) == REFERENCE_JOB
    assert forms.job_form(dict(LATER)) == REFERENCE_JOB


def test_full_job_differs_everywhere() -> None:
    """The full job below really has nothing at its default, so that round trips prove something."""
    blank = Job(name="", schedule="")
    same = [field for field in Job.__struct_fields__ if getattr(FULL_JOB, field) == getattr(blank, field)]
    assert same == ["executor"]


@pytest.mark.parametrize("job", [REFERENCE_JOB, FULL_JOB])
def test_answers_read_back(job: Job) -> None:
    """What GET shows can be sent back and changes nothing, whether or not the job is still there."""
    assert forms.job_form(shown(job)) == job
    assert forms.job_form(shown(job), stored=job, name=job.name) == job
    assert forms.job_patch(shown(job), job) == job


ONE_EDIT: list[tuple[dict[str, Any], str, object]] = [
    ({"command": "new"}, "command", "new"),
    ({"executor_config": {"command": "new"}}, "command", "new"),
    ({"run_as_user": "eve"}, "run_as_user", "eve"),
    ({"executor_config": {"su": "eve"}}, "run_as_user", "eve"),
    ({"timeout": "5s"}, "timeout_us", 5 * SECOND_US),
    ({"executor_config": {"timeout": "5s"}}, "timeout_us", 5 * SECOND_US),
    ({"env": {"C": "3"}}, "env", {"C": "3"}),
    ({"executor_config": {"env": "C=3"}}, "env", {"C": "3"}),
    ({"cwd": "/"}, "cwd", "/"),
    ({"executor_config": {"cwd": "/"}}, "cwd", "/"),
    ({"shell": True}, "shell", True),
    ({"executor_config": {"shell": True}}, "shell", True),
    ({"payload": "p"}, "payload", "p"),
    ({"executor_config": {"payload": base64.b64encode(b"p").decode()}}, "payload", "p"),
    ({"parent_job": "c"}, "parent_jobs", ("c",)),
    ({"parent_job": ""}, "parent_jobs", ()),
    ({"parent_jobs": ["c"]}, "parent_jobs", ("c",)),
    ({"parent_jobs": []}, "parent_jobs", ()),
    ({"parent_jobs": ["b"]}, "parent_jobs", ("b",)),
]


@pytest.mark.parametrize(("edit", "field", "value"), ONE_EDIT)
def test_client_edits_one_name(edit: dict[str, Any], field: str, value: object) -> None:
    """A client that knows one dialect changes one field of an answer and sends all of it back: the edit counts."""
    body = shown(FULL_JOB)
    for key, new in edit.items():
        body[key] = {**body[key], **new} if key == "executor_config" else new
    expected = msgspec.structs.replace(FULL_JOB, **{field: value})
    assert forms.job_form(body, stored=FULL_JOB) == expected
    if "env" not in edit:  # a patch adds to a map: test_patch
        assert forms.job_patch(body, FULL_JOB) == expected


@pytest.mark.parametrize(
    "both",
    [
        {"command": "a", "executor_config": {"command": "b"}},
        {"command": "a", "run_as_user": "x", "executor_config": {"su": "y"}},
        {"command": "a", "parent_job": "x", "parent_jobs": ["y", "z"]},
    ],
)
def test_two_names_that_disagree(both: dict[str, Any]) -> None:
    """With nothing stored to tell which was edited, both values are named."""
    with pytest.raises(InvalidRequest, match="says something else than"):
        forms.job_form({"name": "a", "schedule": "@daily", **both})


def test_two_names_that_agree() -> None:
    """The same under both names is no contradiction."""
    body: dict[str, object] = {
        "name": "a",
        "schedule": "@daily",
        "command": "x",
        "executor_config": {"command": "x"},
    }
    assert forms.job_form(body).command == "x"


def test_what_is_not_ours_is_ignored() -> None:
    """Counters, what the server computes, unknown keys: never refused, never stored; null is absent (point 2)."""
    noise = {
        "id": 7,
        "success_count": "many",
        "error_count": None,
        "last_success": "0001-01-01T100:00:00Z",
        "last_error": [],
        "status": 5,
        "next": {},
        "dependent_jobs": "x",
        "dependents": 1,
        "something_new": {"a": [1]},
        "displayname": None,
        "retries": None,
        "executor_config": None,
        "tags": None,
    }
    expected = msgspec.structs.replace(REFERENCE_JOB, tags=None)
    assert forms.job_form({**SEED, **noise}) == expected


def test_unknown_config_is_kept() -> None:
    """Keys of executor_config that no field holds are kept as texts."""
    body = {**LATER, "executor_config": {"command": "x", "mem_limit_kb": 5, "flag": True, "no": None}}
    assert forms.job_form(body).executor_config == {"mem_limit_kb": "5", "flag": "true"}


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS)
def test_bad_field(field: str, value: object) -> None:
    """Wrong type, empty, too much, out of range: the field is named, and how it would be right."""
    key = field.partition(".")[0]
    for read in (forms.job_form, lambda body: forms.job_patch(body, REFERENCE_JOB)):
        base = {} if key == "executor_config" else dict(SEED)
        with pytest.raises(InvalidRequest) as caught:
            read({**base, **({} if base else {"name": "cron_job", "schedule": "@daily"}), key: value})
        assert caught.value.field == field
        assert caught.value.hint
        assert (caught.value.why + caught.value.hint).isprintable()
        assert len(caught.value.why) < 200


def test_every_field_of_a_job_is_tested() -> None:
    """The table above names every key a job is read from."""
    assert {field.partition(".")[0] for field, _ in BAD_FIELDS} == forms._JOB.keys() | {"executor_config", "parent_job"}


@pytest.mark.parametrize("missing", ["name", "schedule", "command"])
def test_required(missing: str) -> None:
    """The reference's three required parameters, absent or null."""
    for body in ({k: v for k, v in SEED.items() if k != missing}, {**SEED, missing: None}):
        with pytest.raises(InvalidRequest) as caught:
            forms.job_form(body)
        assert caught.value.field == missing
        assert "missing" in caught.value.why


def test_child_needs_no_schedule() -> None:
    """A job with a parent runs after it, and by itself only when asked to."""
    for more in ({}, {"schedule": ""}):
        child = forms.job_form({"name": "a", "command": "x", "parent_job": "b", **more})
        assert (child.parent_jobs, child.schedule) == (("b",), "@manually")


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"parent_job": "cron_job"}, "parent_jobs"),
        ({"starts_at": "2030-01-02T00:00:00Z", "expires_at": "2030-01-01T00:00:00Z"}, "expires_at"),
    ],
)
def test_fields_that_contradict_each_other(more: dict[str, Any], field: str) -> None:
    """What can only be said of several fields together names one of them."""
    with pytest.raises(InvalidRequest) as caught:
        forms.job_form({**SEED, **more})
    assert caught.value.field == field


def test_name_in_the_path() -> None:
    """It counts where the body has none, and a body may not contradict it."""
    body = {key: value for key, value in SEED.items() if key != "name"}
    assert forms.job_form(body, name="other").name == "other"
    with pytest.raises(InvalidRequest, match="not the name in the path"):
        forms.job_form(dict(SEED), name="other")
    with pytest.raises(InvalidRequest, match="cannot be renamed"):
        forms.job_patch({"name": "other"}, REFERENCE_JOB)


def test_large_job() -> None:
    """Just over 64 KiB is refused, naming what takes the room; just under passes."""
    assert forms.job_form({**SEED, "command": "x" * 64_000}).command == "x" * 64_000
    with pytest.raises(TooLarge) as caught:
        forms.job_form({**SEED, "payload": "x" * 1000, "command": "x" * 64_600})
    assert caught.value.field == "command"
    with pytest.raises(TooLarge):
        forms.job_form({**SEED, "command": "x" * 900_000})
    with pytest.raises(TooLarge) as caught:
        forms.job_form({**SEED, "metadata": {str(i): "é" * 3000 for i in range(20)}})
    assert caught.value.field == "metadata"


PATCHES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"disabled": False}, {"disabled": False}),
    ({"command": "new"}, {"command": "new"}),
    ({"executor_config": {"command": "new"}}, {"command": "new"}),
    ({"executor_config": {"project": None, "more": 1}}, {"executor_config": {"more": "1"}}),
    ({"executor_config": None}, {"executor_config": None}),
    ({"executor_config": {"timeout": None, "cwd": None}}, {"timeout_us": 0, "cwd": ""}),
    ({"tags": {"role": None, "zone": "eu"}}, {"tags": {"zone": "eu"}}),
    ({"tags": None}, {"tags": None}),
    ({"tags": {"role": None}}, {"tags": None}),
    ({"env": {"A": None}}, {"env": {"B": "2"}}),
    ({"processors": {"files": {"forward": None, "x": 1}}}, {"processors": {"files": {"x": "1"}}}),
    ({"limits": {"memory": 5}}, {"limits": Limits(memory_bytes=5, processes=7)}),
    ({"history": {"days": None}}, {"history": History(runs=5, days=30)}),
    ({"history": None}, {"history": History()}),
    ({"timeout": None, "retries": None, "payload": None}, {"timeout_us": 0, "retries": 0, "payload": ""}),
    ({"parent_job": None}, {"parent_jobs": ()}),
    ({"parent_job": "c"}, {"parent_jobs": ("c",)}),
    ({"starts_at": None, "success_count": 9, "unknown": None}, {"starts_at_wall_us": 0}),
    ({"name": "full"}, {}),
]


@pytest.mark.parametrize(("patch", "changes"), PATCHES)
def test_patch(patch: dict[str, Any], changes: dict[str, Any]) -> None:
    """RFC 7396: what is named changes, null goes back to the default, maps are merged, the rest stays."""
    assert forms.job_patch(patch, FULL_JOB) == msgspec.structs.replace(FULL_JOB, **changes)


@pytest.mark.parametrize("key", ["name", "schedule", "command"])
def test_patch_cannot_remove_what_is_required(key: str) -> None:
    """null is "back to the default", and these have none."""
    with pytest.raises(InvalidRequest, match="is missing"):
        forms.job_patch({key: None}, REFERENCE_JOB)


NAMES = st.from_regex(r"[a-zA-Z0-9_-][a-zA-Z0-9_.-]{0,20}", fullmatch=True)
WORDS = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=20)
MAPS = st.none() | st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), WORDS, min_size=1, max_size=4)
VARIABLES = MAPS.filter(lambda found: not found or not any(key.startswith("MESHCRON_") for key in found))
TAGS = MAPS.filter(lambda found: not found or not any(":" in value for value in found.values()))
SPANS = st.integers(0, 10**12)
JOBS = st.builds(
    Job,
    name=NAMES,
    schedule=st.just("@daily"),
    command=WORDS.filter(bool),
    displayname=WORDS,
    owner=WORDS,
    tags=TAGS,
    metadata=MAPS,
    concurrency=st.sampled_from(["allow", "forbid", "queue", "replace"]),
    retries=st.integers(0, 1000),
    retry_delay_us=SPANS,
    retry_backoff=st.floats(1, 100),
    timeout_us=SPANS,
    env=VARIABLES,
    cwd=WORDS,
    shell=st.booleans(),
    payload=WORDS,
    nice=st.integers(0, 19),
    start_deadline_us=SPANS.map(lambda span_us: span_us + SECOND_US),
    starts_at_wall_us=st.integers(0, 10**15),
    success_exit_codes=st.lists(st.integers(0, 255), min_size=1, max_size=5).map(tuple),
    disabled=st.booleans(),
)


@given(JOBS)
def test_any_job_reads_back(job: Job) -> None:
    """Whatever the job: its answer, sent back, is the job."""
    assert forms.job_form(shown(job)) == job
    assert forms.job_patch(shown(job), job) == job


def test_a_negative_niceness_of_earlier_stays() -> None:
    """It was taken once, and never had an effect: such a job is shown and edited as before; the field itself is not."""
    stored = msgspec.structs.replace(FULL_JOB, nice=-5)
    assert shown(stored)["nice"] == -5
    assert forms.job_patch({"owner": "somebody"}, stored) == msgspec.structs.replace(stored, owner="somebody")
    with pytest.raises(InvalidRequest, match="nice: is not between 0 and 19"):
        forms.job_patch({"nice": -5}, stored)


def test_run_form() -> None:
    """Nothing, or parameters that are variables of the environment."""
    assert forms.run_form({}) is None
    assert forms.run_form({"env": None, "other": 1}) is None
    assert forms.run_form({"env": {}}) is None
    assert forms.run_form({"env": {"A": 1}}) == {"A": "1"}
    with pytest.raises(TooLarge):
        forms.run_form({"env": {"A": "x" * 20_000}})


@pytest.mark.parametrize(("field", "env"), BAD_RUNS)
def test_bad_run(field: str, env: object) -> None:
    """The variable at fault is named."""
    with pytest.raises(InvalidRequest) as caught:
        forms.run_form({"env": env})
    assert caught.value.field == field


def test_token_form() -> None:
    """A name, a role, and how long it lives."""
    form = forms.token_form({"name": "ci", "role": "operator", "expires_in": "90d"})
    assert (form.name, form.role, form.expires_in_us) == ("ci", "operator", 90 * 86400 * SECOND_US)
    assert forms.token_form({"name": "ci", "role": "viewer", "expires_at": None}).expires_wall_us == 0


@pytest.mark.parametrize(("field", "body"), BAD_TOKENS)
def test_bad_token(field: str, body: dict[str, Any]) -> None:
    """Each names its field."""
    with pytest.raises(InvalidRequest) as caught:
        forms.token_form(body)
    assert caught.value.field == field
