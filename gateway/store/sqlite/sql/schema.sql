-- The one file. Small, often-updated state stands in `job`; bodies stand apart, since SQLite rewrites a
-- whole row, overflow pages included, at each update.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

CREATE TABLE job (
    pk             INTEGER PRIMARY KEY,
    id             TEXT    NOT NULL UNIQUE,
    tenant         BLOB    NOT NULL CHECK (length(tenant) = 32),
    -- Of the create request, while a retry of it may adopt the job: until a request names the job.
    fingerprint    BLOB,
    -- The turn before this one. Its row stays, unseen, for as long as a later turn needs it as context.
    previous       INTEGER REFERENCES job (pk),
    backend        TEXT    NOT NULL,
    -- For operators, and so is `error`, the code of a failure.
    model          TEXT,
    error          TEXT,
    priority       INTEGER NOT NULL,
    status         TEXT    NOT NULL CHECK (status IN
                       ('queued', 'in_progress', 'completed', 'failed', 'incomplete', 'cancelled')),
    -- Fencing: every claim and take-over raises the epoch, every write must bring the present one.
    epoch          INTEGER NOT NULL DEFAULT 0,
    owner          TEXT,
    -- Calls that the backend may have accepted, and calls that it sent away.
    attempt        INTEGER NOT NULL DEFAULT 0,
    put_offs       INTEGER NOT NULL DEFAULT 0,
    not_before_ms  INTEGER NOT NULL DEFAULT 0,
    next_seq       INTEGER NOT NULL,
    is_background  INTEGER NOT NULL CHECK (is_background IN (0, 1)),
    is_streamed    INTEGER NOT NULL CHECK (is_streamed IN (0, 1)),
    is_followable  INTEGER NOT NULL CHECK (is_followable IN (0, 1)),
    is_rerunnable  INTEGER NOT NULL CHECK (is_rerunnable IN (0, 1)),
    output_shown   INTEGER NOT NULL DEFAULT 0 CHECK (output_shown IN (0, 1)),
    created_at_ms  INTEGER NOT NULL,
    deadline_ms    INTEGER NOT NULL,
    started_at_ms  INTEGER,
    finished_at_ms INTEGER,
    -- Counted from the end. 0: deleted by its client, to be purged as soon as may be.
    expires_at_ms  INTEGER,
    CHECK ((status IN ('completed', 'failed', 'incomplete', 'cancelled')) = (finished_at_ms IS NOT NULL)),
    CHECK ((finished_at_ms IS NULL) = (expires_at_ms IS NULL))
) STRICT;

-- With all that a scrape asks of each job that waits: there are as many as the settings let wait.
CREATE INDEX job_waiting ON job (backend, priority, tenant, pk, status, owner, not_before_ms, created_at_ms)
    WHERE owner IS NULL AND status IN ('queued', 'in_progress');
CREATE INDEX job_owned ON job (status, owner) WHERE owner IS NOT NULL AND status IN ('queued', 'in_progress');
CREATE INDEX job_queued_of_tenant ON job (tenant) WHERE status = 'queued';
CREATE INDEX job_deadline ON job (deadline_ms) WHERE status IN ('queued', 'in_progress');
CREATE INDEX job_expiry ON job (expires_at_ms, status) WHERE expires_at_ms IS NOT NULL;
CREATE INDEX job_unnamed ON job (fingerprint) WHERE fingerprint IS NOT NULL;
CREATE INDEX job_previous ON job (previous) WHERE previous IS NOT NULL;

-- The state machine once more (gateway/core/job.py has it first): a wrong statement cannot break it.
CREATE TRIGGER job_moves BEFORE UPDATE OF status ON job
WHEN OLD.status <> NEW.status AND NOT (
       (OLD.status = 'queued' AND NEW.status IN ('in_progress', 'cancelled', 'failed'))
    OR (OLD.status = 'in_progress' AND NEW.status IN ('completed', 'failed', 'incomplete', 'cancelled')))
BEGIN
    SELECT RAISE(ABORT, 'illegal move of a job');
END;

-- Jobs that have ended and were not deleted, by status: a scrape must not count them. Triggers keep it, in the
-- transaction of whatever changes it.
CREATE TABLE ended (
    status TEXT PRIMARY KEY,
    jobs   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER job_is_kept AFTER INSERT ON job
WHEN NEW.expires_at_ms > 0
BEGIN
    INSERT INTO ended VALUES (NEW.status, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;

CREATE TRIGGER job_has_ended AFTER UPDATE OF expires_at_ms ON job
WHEN OLD.expires_at_ms IS NULL AND NEW.expires_at_ms > 0
BEGIN
    INSERT INTO ended VALUES (NEW.status, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;

CREATE TRIGGER job_is_deleted AFTER UPDATE OF expires_at_ms ON job
WHEN OLD.expires_at_ms > 0 AND NEW.expires_at_ms = 0
BEGIN
    UPDATE ended SET jobs = jobs - 1 WHERE status = NEW.status;
END;

CREATE TRIGGER job_is_purged AFTER DELETE ON job
WHEN OLD.expires_at_ms > 0
BEGIN
    UPDATE ended SET jobs = jobs - 1 WHERE status = OLD.status;
END;

-- Creates that may be repeated: the same key of the same tenant means the same response, for as long as that
-- can be seen. The key is a hash of the client's.
CREATE TABLE idempotency (
    tenant      BLOB    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL,
    job         INTEGER NOT NULL REFERENCES job (pk) ON DELETE CASCADE,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_job ON idempotency (job);

-- What was asked for. `request` has no credential and no `input`, which stands beside it.
CREATE TABLE call (
    job      INTEGER PRIMARY KEY REFERENCES job (pk) ON DELETE CASCADE,
    response BLOB NOT NULL,
    request  BLOB NOT NULL,
    input    BLOB NOT NULL,
    target   TEXT NOT NULL,
    headers  BLOB NOT NULL,
    -- A URL of the caller's own that is to be told of the end, and the lane in which it is.
    webhook  TEXT,
    lane     TEXT,
    CHECK ((webhook IS NULL) = (lane IS NULL))
) STRICT;

-- Callers' credentials and private headers, sealed (AES-256-GCM), for as long as a job may yet run.
CREATE TABLE secret (
    job    INTEGER PRIMARY KEY REFERENCES job (pk) ON DELETE CASCADE,
    key_id TEXT NOT NULL,
    sealed BLOB NOT NULL
) STRICT;

-- Whatever statement ends a job: its secret goes in the same transaction.
CREATE TRIGGER job_forgets AFTER UPDATE OF status ON job
WHEN NEW.finished_at_ms IS NOT NULL
BEGIN
    DELETE FROM secret WHERE job = NEW.pk;
END;

-- The Response at its end.
CREATE TABLE result (
    job   INTEGER PRIMARY KEY REFERENCES job (pk) ON DELETE CASCADE,
    final BLOB NOT NULL
) STRICT;

-- What items a response has whose ids do not say where they are (gateway/wire/item_ids.py): a digest of eight bytes
-- for each id, all in one row. They are searched, newest first. An index of single ids would cost thirty times as
-- much to write where there are a hundred, and whoever names items names new ones.
CREATE TABLE named (
    job       INTEGER NOT NULL REFERENCES job (pk) ON DELETE CASCADE,
    in_output INTEGER NOT NULL CHECK (in_output IN (0, 1)),
    tenant    BLOB    NOT NULL,
    keys      BLOB    NOT NULL,
    PRIMARY KEY (job, in_output)
) STRICT, WITHOUT ROWID;

CREATE INDEX named_tenant ON named (tenant);

-- Events, as they went to readers: the encoded events of one commit in one row.
-- A rowid table with an index writes a sixth of what a clustered one does.
CREATE TABLE segment (
    pk        INTEGER PRIMARY KEY,
    job       INTEGER NOT NULL REFERENCES job (pk) ON DELETE CASCADE,
    first_seq INTEGER NOT NULL,
    last_seq  INTEGER NOT NULL CHECK (last_seq >= first_seq),
    events    BLOB    NOT NULL
) STRICT;

CREATE UNIQUE INDEX segment_order ON segment (job, first_seq);

-- Who is told of ends: what the settings say at each start. Only `disabled_at_ms` is the file's own.
CREATE TABLE endpoint (
    name           TEXT PRIMARY KEY,
    -- JSON lists. Of a tenant the first eight hex digits; an empty list is everybody.
    statuses       TEXT NOT NULL,
    tenants        TEXT NOT NULL,
    fingerprint    BLOB NOT NULL,
    -- The receiver wanted no more. Its events are kept, and wait.
    disabled_at_ms INTEGER
) STRICT, WITHOUT ROWID;

-- The outbox: what is still to be told, and to whom. It has ids and no content, and does not refer to the job,
-- which may be deleted before its end is told. What a lane is: gateway/core/webhooks.py.
CREATE TABLE delivery (
    pk          INTEGER PRIMARY KEY,
    response    TEXT    NOT NULL,
    lane        TEXT    NOT NULL,
    url         TEXT,
    status      TEXT    NOT NULL,
    ended_at_ms INTEGER NOT NULL,
    -- 0: never put off. 1: an operator wants it tried now.
    due_at_ms   INTEGER NOT NULL DEFAULT 0,
    attempts    INTEGER NOT NULL DEFAULT 0,
    failure     TEXT,
    -- Until then somebody is sending it. 0: nobody is.
    leased_until_ms INTEGER NOT NULL DEFAULT 0,
    UNIQUE (response, lane)
) STRICT;

-- An event that was never put off stands in one of these only: most are taken at once, or wait behind a few.
CREATE INDEX delivery_fresh ON delivery (lane, ended_at_ms) WHERE due_at_ms = 0;
CREATE INDEX delivery_put_off ON delivery (lane, due_at_ms) WHERE due_at_ms > 0;
CREATE INDEX delivery_leased ON delivery (leased_until_ms, lane) WHERE leased_until_ms > 0;
CREATE INDEX delivery_put_off_age ON delivery (lane, ended_at_ms) WHERE due_at_ms > 0;

-- The lanes in which something waits: how much, and how it is with the receiver (gateway/core/webhooks.py:
-- Standing). Triggers keep the counts, in the transaction of whatever changes them: nobody counts events.
CREATE TABLE lane (
    name          TEXT PRIMARY KEY,
    waiting       INTEGER NOT NULL,
    -- When something may be sent, at the earliest.
    due_at_ms     INTEGER NOT NULL,
    strikes       INTEGER NOT NULL DEFAULT 0,
    probes        INTEGER NOT NULL DEFAULT 0,
    probe_at_ms   INTEGER NOT NULL DEFAULT 0,
    down_since_ms INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX lane_due ON lane (due_at_ms);

CREATE TRIGGER delivery_comes AFTER INSERT ON delivery
BEGIN
    INSERT INTO lane (name, waiting, due_at_ms) VALUES (NEW.lane, 1, NEW.due_at_ms)
    ON CONFLICT DO UPDATE SET waiting = waiting + 1;
END;

CREATE TRIGGER delivery_goes AFTER DELETE ON delivery
BEGIN
    UPDATE lane SET waiting = waiting - 1 WHERE name = OLD.lane;
END;

CREATE TRIGGER delivery_is_put_off AFTER UPDATE OF due_at_ms ON delivery
BEGIN
    UPDATE lane SET waiting = waiting WHERE name = NEW.lane;
END;

CREATE TRIGGER lane_changes AFTER UPDATE OF waiting, probe_at_ms ON lane
BEGIN
    DELETE FROM lane WHERE name = NEW.name AND waiting = 0;
    UPDATE lane
    SET due_at_ms = max(NEW.probe_at_ms, coalesce(
        (SELECT 0 FROM delivery INDEXED BY delivery_fresh WHERE lane = NEW.name AND due_at_ms = 0 LIMIT 1),
        (SELECT min(due_at_ms) FROM delivery INDEXED BY delivery_put_off
         WHERE lane = NEW.name AND due_at_ms > 0)))
    WHERE name = NEW.name;
END;

-- Whatever statement ends a job, the outbox has it in the same transaction, once for each receiver.
CREATE TRIGGER job_ends AFTER UPDATE OF status ON job
WHEN OLD.finished_at_ms IS NULL AND NEW.finished_at_ms IS NOT NULL
BEGIN
    INSERT INTO delivery (response, lane, status, ended_at_ms)
    SELECT NEW.id, name, NEW.status, NEW.finished_at_ms
    FROM endpoint
    WHERE NEW.status IN (SELECT value FROM json_each(statuses))
      AND (tenants = '[]'
           OR lower(substr(hex(NEW.tenant), 1, 8)) IN (SELECT value FROM json_each(tenants)));
    INSERT INTO delivery (response, lane, url, status, ended_at_ms)
    SELECT NEW.id, lane, webhook, NEW.status, NEW.finished_at_ms
    FROM call
    WHERE job = NEW.pk AND webhook IS NOT NULL;
END;
