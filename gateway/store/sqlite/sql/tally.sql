-- What every create and every claim asks of the whole queue, kept so that nobody has to count it again: with
-- 10,000 jobs waiting that would cost a millisecond each time. Derived from `job` by triggers, in the writer's
-- own memory: it goes back with a transaction that does, and is made anew at every start.

-- Jobs by tenant that are queued. The empty name stands for all tenants.
CREATE TEMP TABLE queued (tenant BLOB PRIMARY KEY, jobs INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- Jobs by backend and tenant that run.
CREATE TEMP TABLE running (
    backend TEXT    NOT NULL,
    tenant  BLOB    NOT NULL,
    jobs    INTEGER NOT NULL,
    PRIMARY KEY (backend, tenant)
) STRICT, WITHOUT ROWID;

-- When each tenant's next turn at a backend is, in a time that turns alone move on; not derived, only
-- remembered. The empty name stands for now: the turn that was taken last.
CREATE TEMP TABLE turn (
    backend TEXT    NOT NULL,
    tenant  BLOB    NOT NULL,
    number  INTEGER NOT NULL,
    PRIMARY KEY (backend, tenant)
) STRICT, WITHOUT ROWID;
CREATE INDEX temp.turn_number ON turn (backend, number);

-- Jobs that nobody runs and somebody may: queued ones, and silent ones whose run was lost. The rows stand in the
-- order in which their turns come: first the tenant that has the least running, then the one whose turn is earlier.
-- A job of a tier counts for 4 >> priority: one of the highest for 1, one of the lowest for 4.
CREATE TEMP TABLE waiting (
    backend  TEXT    NOT NULL,
    tenant   BLOB    NOT NULL,
    priority INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 2),
    jobs     INTEGER NOT NULL,
    -- The tenant's running jobs there, times what one of this tier counts for.
    load     INTEGER NOT NULL DEFAULT 0,
    turn     INTEGER NOT NULL DEFAULT 0,
    -- The job with which this began: of two that are else alike, the earlier one.
    since    INTEGER NOT NULL,
    PRIMARY KEY (backend, tenant, priority)
) STRICT, WITHOUT ROWID;
CREATE INDEX temp.waiting_order ON waiting (backend, load, turn, priority DESC, since);

CREATE TEMP TRIGGER tenant_joins AFTER INSERT ON waiting
BEGIN
    UPDATE waiting
    SET load = (4 >> NEW.priority) * coalesce(
            (SELECT jobs FROM running WHERE backend = NEW.backend AND tenant = NEW.tenant), 0),
        -- Whoever comes back after a while is not owed the turns that others took meanwhile.
        turn = coalesce(
            (SELECT max(number) FROM turn WHERE backend = NEW.backend AND tenant IN (x'', NEW.tenant)), 0)
    WHERE backend = NEW.backend AND tenant = NEW.tenant AND priority = NEW.priority;
END;

CREATE TEMP TRIGGER tenant_had_its_turn AFTER INSERT ON turn
WHEN NEW.tenant <> x''
BEGIN
    UPDATE waiting SET turn = NEW.number WHERE backend = NEW.backend AND tenant = NEW.tenant;
END;

INSERT INTO queued SELECT tenant, count(*) FROM job WHERE status = 'queued' GROUP BY tenant;
INSERT INTO queued SELECT x'', coalesce(sum(jobs), 0) FROM queued;
INSERT INTO running
SELECT backend, tenant, count(*) FROM job
WHERE owner IS NOT NULL AND status IN ('queued', 'in_progress') AND status = 'in_progress'
GROUP BY backend, tenant;
INSERT INTO waiting (backend, tenant, priority, jobs, since)
SELECT backend, tenant, priority, count(*), min(pk) FROM job
WHERE owner IS NULL AND status IN ('queued', 'in_progress') GROUP BY backend, tenant, priority;

CREATE TEMP TRIGGER job_is_queued AFTER INSERT ON main.job
WHEN NEW.status = 'queued'
BEGIN
    UPDATE queued SET jobs = jobs + 1 WHERE tenant = x'';
    INSERT INTO queued VALUES (NEW.tenant, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
    INSERT INTO waiting (backend, tenant, priority, jobs, since)
    VALUES (NEW.backend, NEW.tenant, NEW.priority, 1, NEW.pk)
    ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;

CREATE TEMP TRIGGER job_leaves_the_queue AFTER UPDATE OF status ON main.job
WHEN OLD.status = 'queued' AND NEW.status <> 'queued'
BEGIN
    UPDATE queued SET jobs = jobs - 1 WHERE tenant IN (x'', NEW.tenant);
    DELETE FROM queued WHERE tenant = NEW.tenant AND jobs = 0;
END;

CREATE TEMP TRIGGER job_waits AFTER UPDATE OF status, owner ON main.job
WHEN OLD.owner IS NOT NULL AND NEW.owner IS NULL AND NEW.status IN ('queued', 'in_progress')
BEGIN
    INSERT INTO waiting (backend, tenant, priority, jobs, since)
    VALUES (NEW.backend, NEW.tenant, NEW.priority, 1, NEW.pk)
    ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;

CREATE TEMP TRIGGER job_waits_no_more AFTER UPDATE OF status, owner ON main.job
WHEN OLD.owner IS NULL AND OLD.status IN ('queued', 'in_progress')
     AND NOT (NEW.owner IS NULL AND NEW.status IN ('queued', 'in_progress'))
BEGIN
    UPDATE waiting SET jobs = jobs - 1
    WHERE backend = NEW.backend AND tenant = NEW.tenant AND priority = NEW.priority;
    DELETE FROM waiting
    WHERE backend = NEW.backend AND tenant = NEW.tenant AND priority = NEW.priority AND jobs = 0;
END;

CREATE TEMP TRIGGER job_changes_its_tier AFTER UPDATE OF priority ON main.job
WHEN OLD.priority <> NEW.priority AND NEW.owner IS NULL AND NEW.status IN ('queued', 'in_progress')
BEGIN
    UPDATE waiting SET jobs = jobs - 1
    WHERE backend = NEW.backend AND tenant = NEW.tenant AND priority = OLD.priority;
    DELETE FROM waiting
    WHERE backend = NEW.backend AND tenant = NEW.tenant AND priority = OLD.priority AND jobs = 0;
    INSERT INTO waiting (backend, tenant, priority, jobs, since)
    VALUES (NEW.backend, NEW.tenant, NEW.priority, 1, NEW.pk)
    ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;

CREATE TEMP TRIGGER job_runs_at_once AFTER INSERT ON main.job
WHEN NEW.status = 'in_progress'
BEGIN
    INSERT INTO running VALUES (NEW.backend, NEW.tenant, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
    UPDATE waiting SET load = load + (4 >> priority) WHERE backend = NEW.backend AND tenant = NEW.tenant;
END;

CREATE TEMP TRIGGER job_runs AFTER UPDATE OF status, owner ON main.job
WHEN NEW.owner IS NOT NULL AND NEW.status = 'in_progress'
     AND NOT (OLD.owner IS NOT NULL AND OLD.status = 'in_progress')
BEGIN
    INSERT INTO running VALUES (NEW.backend, NEW.tenant, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
    UPDATE waiting SET load = load + (4 >> priority) WHERE backend = NEW.backend AND tenant = NEW.tenant;
END;

CREATE TEMP TRIGGER job_runs_no_more AFTER UPDATE OF status, owner ON main.job
WHEN OLD.owner IS NOT NULL AND OLD.status = 'in_progress'
     AND NOT (NEW.owner IS NOT NULL AND NEW.status = 'in_progress')
BEGIN
    UPDATE running SET jobs = jobs - 1 WHERE backend = NEW.backend AND tenant = NEW.tenant;
    DELETE FROM running WHERE backend = NEW.backend AND tenant = NEW.tenant AND jobs = 0;
    UPDATE waiting SET load = load - (4 >> priority) WHERE backend = NEW.backend AND tenant = NEW.tenant;
END;
