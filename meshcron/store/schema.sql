-- Version 6 of the database. Times are integers in microseconds; booleans are 0 and 1.

-- This agent's own: never part of a snapshot.
CREATE TABLE ballot (id INTEGER PRIMARY KEY, term INTEGER NOT NULL, voted_for TEXT NOT NULL);
CREATE TABLE mark (
    id INTEGER PRIMARY KEY, cluster_us INTEGER NOT NULL, generation INTEGER NOT NULL, term INTEGER NOT NULL,
    cluster TEXT NOT NULL DEFAULT ''
);
CREATE TABLE seen (
    execution_id TEXT PRIMARY KEY, state TEXT NOT NULL, session INTEGER NOT NULL, start_by_cluster_us INTEGER NOT NULL,
    pid INTEGER NOT NULL, process_start INTEGER NOT NULL, started_wall_us INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL, "order" TEXT NOT NULL, result TEXT NOT NULL
);
CREATE TABLE specs (digest TEXT PRIMARY KEY, spec TEXT NOT NULL);

-- The replicated log, and the entry that was cut off last: `crc` is NULL where nobody told us.
CREATE TABLE log (idx INTEGER PRIMARY KEY, term INTEGER NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE log_base (id INTEGER PRIMARY KEY, idx INTEGER NOT NULL, term INTEGER NOT NULL, crc INTEGER);

-- The catalog: a function of the log.
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE jobs (
    uid INTEGER NOT NULL, revision INTEGER NOT NULL, name TEXT NOT NULL, definition TEXT NOT NULL,
    current INTEGER NOT NULL, hidden INTEGER NOT NULL, created_wall_us INTEGER NOT NULL,
    PRIMARY KEY (uid, revision)
);
CREATE TABLE job_states (
    uid INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, cursor_wall_us INTEGER NOT NULL, next_wall_us INTEGER NOT NULL,
    success_count INTEGER NOT NULL, error_count INTEGER NOT NULL, last_success_wall_us INTEGER NOT NULL,
    last_error_wall_us INTEGER NOT NULL, last_status TEXT NOT NULL, recorded INTEGER NOT NULL
);
CREATE TABLE owed (
    key TEXT PRIMARY KEY, uid INTEGER NOT NULL, kind TEXT NOT NULL, run_id TEXT NOT NULL, attempt INTEGER NOT NULL,
    trigger TEXT NOT NULL, scheduled_wall_us INTEGER NOT NULL, due_cluster_us INTEGER NOT NULL, node_id TEXT NOT NULL,
    env TEXT NOT NULL
);
CREATE TABLE members (
    node_id TEXT PRIMARY KEY, name TEXT NOT NULL, number INTEGER NOT NULL, public_key TEXT NOT NULL,
    priority INTEGER NOT NULL, eligible INTEGER NOT NULL, voter INTEGER NOT NULL, leaving INTEGER NOT NULL,
    started INTEGER NOT NULL
);
CREATE TABLE tokens (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, sha256 TEXT NOT NULL, created_wall_us INTEGER NOT NULL,
    expires_wall_us INTEGER NOT NULL, node_id TEXT NOT NULL
);
CREATE TABLE calls (
    key TEXT PRIMARY KEY, entry_index INTEGER NOT NULL, cluster_us INTEGER NOT NULL, kind TEXT NOT NULL,
    answer TEXT NOT NULL
);
CREATE TABLE executions (
    id TEXT PRIMARY KEY, uid INTEGER NOT NULL, run_id TEXT NOT NULL, idx INTEGER NOT NULL, revision INTEGER NOT NULL,
    attempt INTEGER NOT NULL, trigger TEXT NOT NULL, scheduled_wall_us INTEGER NOT NULL, due_cluster_us INTEGER NOT NULL,
    start_by_cluster_us INTEGER NOT NULL, node_id TEXT NOT NULL, agent TEXT NOT NULL, status TEXT NOT NULL,
    reason TEXT NOT NULL, started_wall_us INTEGER NOT NULL, finished_wall_us INTEGER NOT NULL, exit_code INTEGER,
    signal INTEGER, output_tail TEXT NOT NULL, output_bytes INTEGER NOT NULL, output_truncated INTEGER NOT NULL,
    until_wall_us INTEGER NOT NULL, count INTEGER NOT NULL, env TEXT, stop TEXT NOT NULL,
    run_failed INTEGER NOT NULL
);

-- A page of a job's executions, its newest ones, and the end of its history.
CREATE INDEX executions_by_job ON executions (uid, idx);
CREATE INDEX executions_by_run ON executions (run_id);
-- History across jobs, in order of time; what went well is most of it and needs no index of its own.
CREATE INDEX executions_by_time ON executions (scheduled_wall_us);
CREATE INDEX executions_by_agent ON executions (agent, scheduled_wall_us);
CREATE INDEX executions_amiss ON executions (status, scheduled_wall_us)
    WHERE status NOT IN ('armed', 'running', 'success');
CREATE INDEX executions_open ON executions (idx) WHERE status IN ('armed', 'running');
