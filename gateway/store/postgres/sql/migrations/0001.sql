-- The tables that several gateways share. What each is for: ../../../sqlite/sql/schema.sql, whose words and rules
-- these follow. What differs is said here.

CREATE TABLE backburner.meta (
    key   text  PRIMARY KEY,
    value bytea NOT NULL
);

-- Gateways that live, or did so a moment ago. Times are the database's own.
CREATE TABLE backburner.replica (
    id              text   PRIMARY KEY,
    beat_at_ms      bigint NOT NULL,
    -- It has said that it lives, without a gap, since then. Whoever has just come back from a gap judges nobody:
    -- the others may have had the same.
    steady_since_ms bigint NOT NULL,
    -- What it holds in common with the others, as one digest for each fact.
    facts           jsonb  NOT NULL DEFAULT '{}'
);

-- Often updated, and so with room in its pages and without an index on what an append changes.
CREATE TABLE backburner.job (
    pk             bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id             text    NOT NULL UNIQUE,
    tenant         bytea   NOT NULL CHECK (length(tenant) = 32),
    fingerprint    bytea,
    previous       bigint  REFERENCES backburner.job (pk),
    backend        text    NOT NULL,
    model          text,
    error          text,
    priority       integer NOT NULL CHECK (priority BETWEEN 0 AND 2),
    status         text    NOT NULL CHECK (status IN
                       ('queued', 'in_progress', 'completed', 'failed', 'incomplete', 'cancelled')),
    epoch          bigint  NOT NULL DEFAULT 0,
    owner          text,
    -- The claim by which its owner has it: what was claimed is found again when the answer was lost.
    claimed_by     bigint,
    -- At which turn of its backend it began to wait.
    turn           bigint  NOT NULL DEFAULT 0,
    attempt        integer NOT NULL DEFAULT 0,
    put_offs       integer NOT NULL DEFAULT 0,
    not_before_ms  bigint  NOT NULL DEFAULT 0,
    next_seq       bigint  NOT NULL,
    is_background  boolean NOT NULL,
    is_streamed    boolean NOT NULL,
    is_followable  boolean NOT NULL,
    is_rerunnable  boolean NOT NULL,
    output_shown   boolean NOT NULL DEFAULT false,
    created_at_ms  bigint  NOT NULL,
    deadline_ms    bigint  NOT NULL,
    started_at_ms  bigint,
    finished_at_ms bigint,
    expires_at_ms  bigint,
    CHECK ((status IN ('completed', 'failed', 'incomplete', 'cancelled')) = (finished_at_ms IS NOT NULL)),
    CHECK ((finished_at_ms IS NULL) = (expires_at_ms IS NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_limit = 10000);

CREATE INDEX job_waiting ON backburner.job (backend, tenant, priority, pk)
    WHERE owner IS NULL AND status IN ('queued', 'in_progress');
CREATE INDEX job_owned ON backburner.job (backend, tenant, status, owner)
    WHERE owner IS NOT NULL AND status IN ('queued', 'in_progress');
CREATE INDEX job_queued ON backburner.job (tenant) WHERE status = 'queued';
CREATE INDEX job_deadline ON backburner.job (deadline_ms) WHERE status IN ('queued', 'in_progress');
CREATE INDEX job_expiry ON backburner.job (expires_at_ms, status) WHERE expires_at_ms IS NOT NULL;
CREATE INDEX job_unnamed ON backburner.job (fingerprint) WHERE fingerprint IS NOT NULL;
CREATE INDEX job_previous ON backburner.job (previous) WHERE previous IS NOT NULL;
CREATE INDEX job_start ON backburner.job (id text_pattern_ops);

CREATE FUNCTION backburner.refuse_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'illegal move of a job' USING ERRCODE = 'check_violation';
END $$;

-- The state machine once more (gateway/core/job.py has it first): a wrong statement cannot break it.
CREATE TRIGGER job_moves BEFORE UPDATE OF status ON backburner.job FOR EACH ROW
WHEN (OLD.status <> NEW.status AND NOT (
       (OLD.status = 'queued' AND NEW.status IN ('in_progress', 'cancelled', 'failed'))
    OR (OLD.status = 'in_progress' AND NEW.status IN ('completed', 'failed', 'incomplete', 'cancelled'))))
EXECUTE FUNCTION backburner.refuse_move();

CREATE TABLE backburner.idempotency (
    tenant      bytea  NOT NULL,
    key         text   NOT NULL,
    fingerprint bytea  NOT NULL,
    job         bigint NOT NULL REFERENCES backburner.job (pk) ON DELETE CASCADE,
    PRIMARY KEY (tenant, key)
);
CREATE INDEX idempotency_job ON backburner.idempotency (job);

CREATE TABLE backburner.call (
    job      bigint PRIMARY KEY REFERENCES backburner.job (pk) ON DELETE CASCADE,
    response bytea NOT NULL,
    request  bytea NOT NULL,
    input    bytea NOT NULL,
    target   text  NOT NULL,
    headers  bytea NOT NULL,
    webhook  text,
    lane     text,
    CHECK ((webhook IS NULL) = (lane IS NULL))
);

CREATE TABLE backburner.secret (
    job    bigint PRIMARY KEY REFERENCES backburner.job (pk) ON DELETE CASCADE,
    key_id text  NOT NULL,
    sealed bytea NOT NULL
);

CREATE TABLE backburner.result (
    job   bigint PRIMARY KEY REFERENCES backburner.job (pk) ON DELETE CASCADE,
    final bytea NOT NULL
);

CREATE TABLE backburner.named (
    job       bigint  NOT NULL REFERENCES backburner.job (pk) ON DELETE CASCADE,
    in_output boolean NOT NULL,
    tenant    bytea   NOT NULL,
    keys      bytea   NOT NULL,
    PRIMARY KEY (job, in_output)
);
CREATE INDEX named_tenant ON backburner.named (tenant, job);

-- No reference to the job: it would cost each append a look and a lock. A row comes by the statement only that has
-- found the job live, and a sweep takes the rows before the job.
CREATE TABLE backburner.segment (
    job       bigint NOT NULL,
    first_seq bigint NOT NULL,
    last_seq  bigint NOT NULL CHECK (last_seq >= first_seq),
    events    bytea  NOT NULL,
    PRIMARY KEY (job, first_seq)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.2);

-- When each tenant's next turn at a backend is; see ../../../sqlite/sql/tally.sql. The empty name stands for now.
CREATE TABLE backburner.turn (
    backend text   NOT NULL,
    tenant  bytea  NOT NULL,
    number  bigint NOT NULL,
    PRIMARY KEY (backend, tenant)
) WITH (fillfactor = 50);

CREATE TABLE backburner.endpoint (
    name           text   PRIMARY KEY,
    statuses       text[] NOT NULL,
    tenants        text[] NOT NULL,
    fingerprint    bytea  NOT NULL,
    disabled_at_ms bigint
);

CREATE TABLE backburner.delivery (
    pk              bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    response        text    NOT NULL,
    lane            text    NOT NULL,
    url             text,
    status          text    NOT NULL,
    ended_at_ms     bigint  NOT NULL,
    due_at_ms       bigint  NOT NULL DEFAULT 0,
    attempts        integer NOT NULL DEFAULT 0,
    failure         text,
    leased_until_ms bigint  NOT NULL DEFAULT 0,
    leased_by       text,
    UNIQUE (response, lane)
);
CREATE INDEX delivery_fresh ON backburner.delivery (lane, ended_at_ms, pk) WHERE due_at_ms = 0;
CREATE INDEX delivery_put_off ON backburner.delivery (lane, due_at_ms) WHERE due_at_ms > 0;
CREATE INDEX delivery_lane ON backburner.delivery (lane, ended_at_ms);
CREATE INDEX delivery_leased ON backburner.delivery (leased_until_ms, lane) WHERE leased_until_ms > 0;

-- How it is with receivers where it is not well (gateway/core/webhooks.py: Standing), and no counts: each end of a
-- job would wait there for that of another.
CREATE TABLE backburner.standing (
    lane          text    PRIMARY KEY,
    strikes       integer NOT NULL,
    probes        integer NOT NULL,
    probe_at_ms   bigint  NOT NULL,
    down_since_ms bigint
);

CREATE FUNCTION backburner.end_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM backburner.secret WHERE job = NEW.pk;
    INSERT INTO backburner.delivery (response, lane, status, ended_at_ms)
    SELECT NEW.id, name, NEW.status, NEW.finished_at_ms
    FROM backburner.endpoint
    WHERE NEW.status = ANY (statuses)
      AND (cardinality(tenants) = 0 OR left(encode(NEW.tenant, 'hex'), 8) = ANY (tenants));
    INSERT INTO backburner.delivery (response, lane, url, status, ended_at_ms)
    SELECT NEW.id, lane, webhook, NEW.status, NEW.finished_at_ms
    FROM backburner.call
    WHERE job = NEW.pk AND webhook IS NOT NULL;
    RETURN NULL;
END $$;

-- Whatever statement ends a job: its secret goes, and the outbox has its events, in the same transaction.
CREATE TRIGGER job_ends AFTER UPDATE OF status ON backburner.job FOR EACH ROW
WHEN (OLD.finished_at_ms IS NULL AND NEW.finished_at_ms IS NOT NULL)
EXECUTE FUNCTION backburner.end_job();

CREATE FUNCTION backburner.now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint
$$;

CREATE FUNCTION backburner.turn_of(p_backend text) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT number FROM backburner.turn WHERE backend = p_backend AND tenant = ''), 0)
$$;

-- One gateway says that it lives. False: others took it for dead; whatever it had is nobody's now.
CREATE FUNCTION backburner.beat(p_id text, p_gap_ms bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    now_ms bigint := backburner.now_ms();
BEGIN
    UPDATE backburner.replica
    SET beat_at_ms = now_ms,
        steady_since_ms = CASE WHEN now_ms - beat_at_ms > p_gap_ms THEN now_ms ELSE steady_since_ms END
    WHERE id = p_id;
    IF FOUND THEN
        RETURN true;
    END IF;
    UPDATE backburner.job
    SET owner = NULL, epoch = epoch + 1, turn = backburner.turn_of(backend)
    WHERE owner = p_id AND status IN ('queued', 'in_progress');
    INSERT INTO backburner.replica (id, beat_at_ms, steady_since_ms) VALUES (p_id, now_ms, now_ms);
    RETURN false;
END $$;

-- Take live jobs from gateways that are dead; at 0 from all. Who is dead is cut off first: it may have been stopped
-- in the middle of a commit, with locks that nobody else would ever get.
CREATE FUNCTION backburner.abandon(p_id text, p_dead_after_ms bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    now_ms bigint := backburner.now_ms();
    freed  bigint;
BEGIN
    IF p_dead_after_ms > 0 AND EXISTS (
        SELECT 1 FROM backburner.replica WHERE id = p_id AND now_ms - steady_since_ms >= p_dead_after_ms)
    THEN
        PERFORM pg_terminate_backend(pid)
        FROM pg_stat_activity
        WHERE usename = current_user AND datname = current_database() AND application_name IN (
            SELECT 'backburner ' || id FROM backburner.replica
            WHERE id <> p_id AND now_ms - beat_at_ms >= p_dead_after_ms);
        DELETE FROM backburner.replica WHERE id <> p_id AND now_ms - beat_at_ms >= p_dead_after_ms;
    END IF;
    UPDATE backburner.job
    SET owner = NULL, epoch = epoch + 1, turn = backburner.turn_of(backend)
    WHERE owner IS NOT NULL AND status IN ('queued', 'in_progress')
      AND (p_dead_after_ms <= 0 OR owner NOT IN (SELECT id FROM backburner.replica));
    GET DIAGNOSTICS freed = ROW_COUNT;
    UPDATE backburner.delivery SET leased_until_ms = 0, leased_by = NULL
    WHERE leased_until_ms > 0 AND leased_by NOT IN (SELECT id FROM backburner.replica);
    RETURN freed;
END $$;

-- Accept a job. Returns what came of it: `created`, `full`, `full_of_tenant`, `gone`, `reused`, or `earlier` and the
-- id of the job that the same key made.
CREATE FUNCTION backburner.create_job(
    p_id text, p_tenant bytea, p_previous_id text, p_fingerprint bytea, p_backend text, p_model text,
    p_priority integer, p_next_seq bigint, p_is_background boolean, p_is_streamed boolean, p_is_followable boolean,
    p_is_rerunnable boolean, p_created_at_ms bigint, p_deadline_ms bigint, p_response bytea, p_request bytea,
    p_input bytea, p_target text, p_headers bytea, p_webhook text, p_lane text, p_input_keys bytea, p_events bytea,
    p_key_id text, p_sealed bytea, p_key text, p_key_fingerprint bytea, p_total_max bigint, p_per_tenant_max bigint,
    OUT verdict text, OUT accepted_id text
) LANGUAGE plpgsql AS $$
DECLARE
    earlier     record;
    v_previous  bigint;
    v_pk        bigint;
BEGIN
    accepted_id := p_id;
    IF p_key IS NOT NULL THEN
        -- Two creates with one key may come to two gateways at once: the second waits, and finds the first.
        PERFORM pg_advisory_xact_lock(1651861093, hashtext(encode(p_tenant, 'hex') || p_key));
        SELECT job.id, idempotency.fingerprint INTO earlier
        FROM backburner.idempotency JOIN backburner.job ON job.pk = idempotency.job
        WHERE idempotency.tenant = p_tenant AND idempotency.key = p_key
          AND (job.expires_at_ms IS NULL OR job.expires_at_ms > p_created_at_ms);
        IF FOUND THEN
            accepted_id := earlier.id;
            verdict := CASE WHEN earlier.fingerprint = p_key_fingerprint THEN 'earlier' ELSE 'reused' END;
            RETURN;
        END IF;
    END IF;
    IF p_total_max <= (SELECT count(*) FROM
            (SELECT 1 FROM backburner.job WHERE status = 'queued' LIMIT p_total_max) AS queued) THEN
        verdict := 'full';
        RETURN;
    END IF;
    IF p_per_tenant_max <= (SELECT count(*) FROM
            (SELECT 1 FROM backburner.job WHERE status = 'queued' AND tenant = p_tenant LIMIT p_per_tenant_max)
            AS queued) THEN
        verdict := 'full_of_tenant';
        RETURN;
    END IF;
    IF p_previous_id IS NOT NULL THEN
        v_previous := backburner.previous_of(p_previous_id, p_tenant, p_created_at_ms);
        IF v_previous IS NULL THEN
            verdict := 'gone';
            RETURN;
        END IF;
    END IF;
    INSERT INTO backburner.job
        (id, tenant, fingerprint, previous, backend, model, priority, status, turn, next_seq, is_background,
         is_streamed, is_followable, is_rerunnable, created_at_ms, deadline_ms)
    VALUES
        (p_id, p_tenant, p_fingerprint, v_previous, p_backend, p_model, p_priority, 'queued',
         backburner.turn_of(p_backend), p_next_seq, p_is_background, p_is_streamed, p_is_followable, p_is_rerunnable,
         p_created_at_ms, p_deadline_ms)
    RETURNING pk INTO v_pk;
    INSERT INTO backburner.call VALUES
        (v_pk, p_response, p_request, p_input, p_target, p_headers, p_webhook, p_lane);
    INSERT INTO backburner.segment VALUES (v_pk, 0, p_next_seq - 1, p_events);
    IF p_input_keys IS NOT NULL THEN
        INSERT INTO backburner.named VALUES (v_pk, false, p_tenant, p_input_keys);
    END IF;
    IF p_sealed IS NOT NULL THEN
        INSERT INTO backburner.secret VALUES (v_pk, p_key_id, p_sealed);
    END IF;
    IF p_key IS NOT NULL THEN
        INSERT INTO backburner.idempotency VALUES (p_tenant, p_key, p_key_fingerprint, v_pk)
        ON CONFLICT (tenant, key) DO UPDATE SET fingerprint = excluded.fingerprint, job = excluded.job;
    END IF;
    verdict := 'created';
END $$;

-- The turn that a new one goes on from, held until the commit: a sweep takes it not now.
CREATE FUNCTION backburner.previous_of(p_id text, p_tenant bytea, p_now_ms bigint) RETURNS bigint
LANGUAGE sql VOLATILE AS $$
    SELECT pk FROM backburner.job
    WHERE id = p_id AND tenant = p_tenant AND (expires_at_ms IS NULL OR expires_at_ms > p_now_ms)
    FOR KEY SHARE
$$;

-- Keep a plain response that has ended: `created`, `taken` or `gone`.
CREATE FUNCTION backburner.record_job(
    p_id text, p_tenant bytea, p_previous_id text, p_backend text, p_model text, p_priority integer, p_status text,
    p_next_seq bigint, p_is_background boolean, p_is_streamed boolean, p_is_followable boolean,
    p_is_rerunnable boolean, p_created_at_ms bigint, p_deadline_ms bigint, p_finished_at_ms bigint,
    p_expires_at_ms bigint, p_response bytea, p_request bytea, p_input bytea, p_target text, p_headers bytea,
    p_webhook text, p_lane text, p_input_keys bytea, p_final bytea, p_output_keys bytea
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_previous bigint;
    v_pk       bigint;
BEGIN
    IF p_previous_id IS NOT NULL THEN
        v_previous := backburner.previous_of(p_previous_id, p_tenant, p_created_at_ms);
        IF v_previous IS NULL THEN
            RETURN 'gone';
        END IF;
    END IF;
    INSERT INTO backburner.job
        (id, tenant, previous, backend, model, priority, status, next_seq, is_background, is_streamed,
         is_followable, is_rerunnable, created_at_ms, deadline_ms, finished_at_ms, expires_at_ms)
    VALUES
        (p_id, p_tenant, v_previous, p_backend, p_model, p_priority, p_status, p_next_seq, p_is_background,
         p_is_streamed, p_is_followable, p_is_rerunnable, p_created_at_ms, p_deadline_ms, p_finished_at_ms,
         p_expires_at_ms)
    ON CONFLICT (id) DO NOTHING
    RETURNING pk INTO v_pk;
    IF v_pk IS NULL THEN
        RETURN 'taken';
    END IF;
    INSERT INTO backburner.call VALUES
        (v_pk, p_response, p_request, p_input, p_target, p_headers, p_webhook, p_lane);
    INSERT INTO backburner.result VALUES (v_pk, p_final);
    IF p_input_keys IS NOT NULL THEN
        INSERT INTO backburner.named VALUES (v_pk, false, p_tenant, p_input_keys);
    END IF;
    IF p_output_keys IS NOT NULL THEN
        INSERT INTO backburner.named VALUES (v_pk, true, p_tenant, p_output_keys);
    END IF;
    RETURN 'created';
END $$;

-- A live job that somebody may start: the first one of a tenant and tier after `p_after`.
CREATE FUNCTION backburner.first_waiting(
    p_backend text, p_tenant bytea, p_priority integer, p_after bigint, p_attempts_max integer, p_now_ms bigint,
    p_accepted_before_ms bigint, OUT pk bigint, OUT turn bigint
) RETURNS SETOF record LANGUAGE sql STABLE AS $$
    SELECT job.pk, job.turn
    FROM backburner.job
    WHERE owner IS NULL AND status IN ('queued', 'in_progress')
      AND backend = p_backend AND tenant = p_tenant AND priority = p_priority AND job.pk > p_after
      AND not_before_ms <= p_now_ms AND deadline_ms > p_now_ms AND created_at_ms <= p_accepted_before_ms
      AND NOT output_shown AND (attempt = 0 OR (is_rerunnable AND attempt < p_attempts_max))
    ORDER BY job.pk
    LIMIT 1
$$;

-- How much a run of a job has to hold in memory.
CREATE FUNCTION backburner.size_of_work(p_pk bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
    WITH RECURSIVE chain (pk) AS (
        SELECT previous FROM backburner.job WHERE pk = p_pk AND previous IS NOT NULL
        UNION ALL
        SELECT job.previous FROM chain JOIN backburner.job ON job.pk = chain.pk WHERE job.previous IS NOT NULL)
    SELECT (SELECT length(input) FROM backburner.call WHERE job = p_pk) + coalesce(
        (SELECT sum(length(call.input) + length(result.final))
         FROM chain JOIN backburner.call ON call.job = chain.pk JOIN backburner.result ON result.job = chain.pk), 0)
$$;

-- Take waiting jobs of a backend, one turn after the other: first the tenant that has the least running, then the
-- one whose turn is earlier. A job of a tier counts for 4 >> priority. Claims of one backend, by whichever gateway,
-- come one after the other: so the order holds for all of them together.
CREATE FUNCTION backburner.claim(
    p_backend text, p_owner text, p_claimed_by bigint, p_limit integer, p_running_max bigint, p_bytes_max bigint,
    p_attempts_max integer, p_now_ms bigint, p_accepted_before_ms bigint, p_resting bytea[]
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    tenants    bytea[];
    priorities integer[];
    loads      bigint[];
    turns      bigint[];
    firsts     bigint[];
    best       integer;
    present    bigint;
    number     bigint;
    v_pk       bigint;
    room       bigint;
    size       bigint := 0;
    taken      bigint[] := '{}';
BEGIN
    IF NOT EXISTS (SELECT 1 FROM backburner.job
                   WHERE owner IS NULL AND status IN ('queued', 'in_progress') AND backend = p_backend) THEN
        RETURN taken;
    END IF;
    PERFORM pg_advisory_xact_lock(1651861094, hashtext(p_backend));
    SELECT least(p_limit, p_running_max - count(*)) INTO room
    FROM backburner.job
    WHERE owner IS NOT NULL AND status IN ('queued', 'in_progress') AND backend = p_backend
      AND status = 'in_progress';
    IF room <= 0 THEN
        RETURN taken;
    END IF;
    WITH RECURSIVE pair AS (
        (SELECT tenant, priority FROM backburner.job
         WHERE owner IS NULL AND status IN ('queued', 'in_progress') AND backend = p_backend
         ORDER BY tenant, priority LIMIT 1)
        UNION ALL
        SELECT further.tenant, further.priority
        FROM pair CROSS JOIN LATERAL (
            SELECT tenant, priority FROM backburner.job
            WHERE owner IS NULL AND status IN ('queued', 'in_progress') AND backend = p_backend
              AND (tenant, priority) > (pair.tenant, pair.priority)
            ORDER BY tenant, priority LIMIT 1) AS further),
    running AS (
        SELECT tenant, count(*) AS jobs
        FROM backburner.job
        WHERE owner IS NOT NULL AND status IN ('queued', 'in_progress') AND backend = p_backend
          AND status = 'in_progress'
        GROUP BY tenant),
    candidate AS (
        SELECT pair.tenant, pair.priority, first.pk, (4 >> pair.priority) * coalesce(running.jobs, 0) AS load,
               greatest(first.turn, coalesce(own.number, 0)) AS turn
        FROM pair
             CROSS JOIN LATERAL backburner.first_waiting(
                 p_backend, pair.tenant, pair.priority, 0, p_attempts_max, p_now_ms, p_accepted_before_ms) AS first
             LEFT JOIN running ON running.tenant = pair.tenant
             LEFT JOIN backburner.turn AS own ON own.backend = p_backend AND own.tenant = pair.tenant
        WHERE NOT pair.tenant = ANY (p_resting)
        ORDER BY load, turn, priority DESC, pk
        LIMIT room)  -- no claim reaches further: whoever is not among them comes after them still
    SELECT array_agg(tenant), array_agg(priority), array_agg(load), array_agg(turn), array_agg(pk)
    INTO tenants, priorities, loads, turns, firsts
    FROM candidate;
    present := backburner.turn_of(p_backend);
    WHILE cardinality(taken) < room AND size < p_bytes_max LOOP
        SELECT i INTO best
        FROM generate_subscripts(firsts, 1) AS i
        WHERE firsts[i] IS NOT NULL
        ORDER BY loads[i], turns[i], priorities[i] DESC, firsts[i]
        LIMIT 1;
        EXIT WHEN best IS NULL;
        -- Whoever takes it over, or deletes it, at this moment has it.
        SELECT pk INTO v_pk FROM backburner.job
        WHERE pk = firsts[best] AND owner IS NULL AND status IN ('queued', 'in_progress')
        FOR UPDATE SKIP LOCKED;
        IF v_pk IS NOT NULL THEN
            UPDATE backburner.job
            SET status = 'in_progress', owner = p_owner, claimed_by = p_claimed_by, epoch = epoch + 1,
                attempt = attempt + 1, started_at_ms = coalesce(started_at_ms, p_now_ms)
            WHERE pk = v_pk;
            taken := taken || v_pk;
            size := size + backburner.size_of_work(v_pk);
            present := greatest(present, turns[best]);
            number := present + (4 >> priorities[best]);
            INSERT INTO backburner.turn VALUES (p_backend, tenants[best], number)
            ON CONFLICT (backend, tenant) DO UPDATE SET number = excluded.number;
            FOR i IN 1 .. cardinality(tenants) LOOP
                IF tenants[i] = tenants[best] THEN
                    loads[i] := loads[i] + (4 >> priorities[i]);
                    turns[i] := number;
                END IF;
            END LOOP;
        END IF;
        firsts[best] := (SELECT pk FROM backburner.first_waiting(
            p_backend, tenants[best], priorities[best], firsts[best], p_attempts_max, p_now_ms,
            p_accepted_before_ms));
    END LOOP;
    IF cardinality(taken) > 0 THEN
        INSERT INTO backburner.turn VALUES (p_backend, '', present)
        ON CONFLICT (backend, tenant) DO UPDATE SET number = excluded.number;
        -- One that is not ahead of now says nothing, unless something still waits that came before it.
        DELETE FROM backburner.turn AS own
        WHERE backend = p_backend AND tenant <> '' AND own.number <= present
          AND NOT EXISTS (SELECT 1 FROM backburner.job
                          WHERE owner IS NULL AND status IN ('queued', 'in_progress')
                            AND job.backend = own.backend AND job.tenant = own.tenant);
    END IF;
    RETURN taken;
END $$;
