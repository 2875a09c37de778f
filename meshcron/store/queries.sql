-- Every statement that reads, by name. A `from_` is completed by tables.py, which adds columns, order and page.

-- name: previous_crc
-- The chain CRC of the entry before a row about to be written: a row of the log, or what was cut off last.
SELECT crc FROM log WHERE idx = :index UNION ALL SELECT crc FROM log_base WHERE idx = :index;

-- name: log
-- The log in order.
SELECT idx, term, crc, body FROM log ORDER BY idx;

-- name: log_base
-- The entry that was cut off last.
SELECT idx, term, crc FROM log_base;

-- name: open_executions
-- What a leader must still bring to an end, oldest first.
SELECT :columns FROM executions INDEXED BY executions_open WHERE status IN ('armed', 'running')
ORDER BY idx, rowid;

-- name: executions_newest_first
-- A page of one job's executions.
SELECT :columns FROM executions INDEXED BY executions_by_job WHERE uid = :uid
ORDER BY idx DESC, rowid DESC LIMIT :limit OFFSET :offset;

-- name: executions_oldest_first
-- A page of one job's executions.
SELECT :columns FROM executions INDEXED BY executions_by_job WHERE uid = :uid
ORDER BY idx, rowid LIMIT :limit OFFSET :offset;

-- name: execution_count
-- How many executions of a job are kept, open ones included.
SELECT count(*) FROM executions INDEXED BY executions_by_job WHERE uid = :uid;

-- name: newest_index
-- The log index of a job's newest execution.
SELECT max(idx) FROM executions INDEXED BY executions_by_job WHERE uid = :uid;

-- name: execution_by_public_id
-- One execution by the parts of the id people see; `none` stands for no agent.
SELECT :columns FROM executions INDEXED BY executions_by_job WHERE uid = :uid AND idx = :index
AND scheduled_wall_us >= :second * 1000000 AND scheduled_wall_us < (:second + 1) * 1000000
AND (agent = :agent OR (agent = '' AND :agent = 'none')) ORDER BY rowid;

-- name: execution_by_id
-- One execution by the cluster's own id.
SELECT :columns FROM executions WHERE id = :id;

-- name: run_executions
-- Every execution of a run, oldest first.
SELECT :columns FROM executions INDEXED BY executions_by_run WHERE run_id = :run_id ORDER BY idx, id;

-- name: from_history
-- Executions of all jobs.
FROM executions INDEXED BY executions_by_time
WHERE scheduled_wall_us BETWEEN :since_wall_us AND :until_wall_us
AND (:status = '' OR status = :status) AND (:agent = '' OR agent = :agent);

-- name: from_history_of_job
-- Executions of one job: as many as its history keeps.
FROM executions INDEXED BY executions_by_job
WHERE uid = :uid AND scheduled_wall_us BETWEEN :since_wall_us AND :until_wall_us
AND (:status = '' OR status = :status) AND (:agent = '' OR agent = :agent);

-- name: from_history_of_agent
-- Executions on one agent.
FROM executions INDEXED BY executions_by_agent
WHERE agent = :agent AND scheduled_wall_us BETWEEN :since_wall_us AND :until_wall_us
AND (:status = '' OR status = :status);

-- name: from_history_amiss
-- Executions that ended in one of the ways that are not success.
FROM executions INDEXED BY executions_amiss
WHERE status NOT IN ('armed', 'running', 'success')
AND status = :status AND scheduled_wall_us BETWEEN :since_wall_us AND :until_wall_us
AND (:agent = '' OR agent = :agent);

-- name: from_history_open
-- Executions not ended yet: few, so that they are put in order each time.
FROM executions INDEXED BY executions_open
WHERE status IN ('armed', 'running')
AND status = :status AND scheduled_wall_us BETWEEN :since_wall_us AND :until_wall_us
AND (:agent = '' OR agent = :agent);
