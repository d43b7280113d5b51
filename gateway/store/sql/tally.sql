-- What every create and every claim asks of the whole queue, kept so that nobody has to count it again: with
-- 10,000 jobs waiting that would cost a millisecond each time. Derived from `job` by triggers, in the writer's
-- own memory: it goes back with a transaction that does, and is made anew at every start.

-- Jobs by tenant that are queued. The empty name stands for all tenants.
CREATE TEMP TABLE queued (tenant BLOB PRIMARY KEY, jobs INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- Jobs by tenant that run.
CREATE TEMP TABLE running (tenant BLOB PRIMARY KEY, jobs INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- Jobs that nobody runs and somebody may: queued ones, and silent ones whose run was lost.
CREATE TEMP TABLE waiting (
    backend  TEXT    NOT NULL,
    priority INTEGER NOT NULL,
    tenant   BLOB    NOT NULL,
    jobs     INTEGER NOT NULL,
    PRIMARY KEY (backend, priority, tenant)
) STRICT, WITHOUT ROWID;

-- The number of each tenant's last turn; not derived, only remembered. One that is forgotten goes first.
CREATE TEMP TABLE turn (tenant BLOB PRIMARY KEY, number INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX temp.turn_number ON turn (number);

INSERT INTO queued SELECT tenant, count(*) FROM job WHERE status = 'queued' GROUP BY tenant;
INSERT INTO queued SELECT x'', coalesce(sum(jobs), 0) FROM queued;
INSERT INTO running
SELECT tenant, count(*) FROM job WHERE owner IS NOT NULL AND status = 'in_progress' GROUP BY tenant;
INSERT INTO waiting
SELECT backend, priority, tenant, count(*) FROM job
WHERE owner IS NULL AND status IN ('queued', 'in_progress') GROUP BY backend, priority, tenant;

CREATE TEMP TRIGGER job_is_queued AFTER INSERT ON main.job
WHEN NEW.status = 'queued'
BEGIN
    UPDATE queued SET jobs = jobs + 1 WHERE tenant = x'';
    INSERT INTO queued VALUES (NEW.tenant, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
    INSERT INTO waiting VALUES (NEW.backend, NEW.priority, NEW.tenant, 1)
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
    INSERT INTO waiting VALUES (NEW.backend, NEW.priority, NEW.tenant, 1)
    ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;

CREATE TEMP TRIGGER job_waits_no_more AFTER UPDATE OF status, owner ON main.job
WHEN OLD.owner IS NULL AND OLD.status IN ('queued', 'in_progress')
     AND NOT (NEW.owner IS NULL AND NEW.status IN ('queued', 'in_progress'))
BEGIN
    UPDATE waiting SET jobs = jobs - 1
    WHERE backend = NEW.backend AND priority = NEW.priority AND tenant = NEW.tenant;
    DELETE FROM waiting
    WHERE backend = NEW.backend AND priority = NEW.priority AND tenant = NEW.tenant AND jobs = 0;
END;

CREATE TEMP TRIGGER job_runs AFTER UPDATE OF status, owner ON main.job
WHEN NEW.owner IS NOT NULL AND NEW.status = 'in_progress'
     AND NOT (OLD.owner IS NOT NULL AND OLD.status = 'in_progress')
BEGIN
    INSERT INTO running VALUES (NEW.tenant, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;

CREATE TEMP TRIGGER job_runs_no_more AFTER UPDATE OF status, owner ON main.job
WHEN OLD.owner IS NOT NULL AND OLD.status = 'in_progress'
     AND NOT (NEW.owner IS NOT NULL AND NEW.status = 'in_progress')
BEGIN
    UPDATE running SET jobs = jobs - 1 WHERE tenant = NEW.tenant;
    DELETE FROM running WHERE tenant = NEW.tenant AND jobs = 0;
END;
