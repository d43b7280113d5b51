-- Events lie in drawers. New jobs put theirs into the one that is open; one that was closed is emptied whole, by
-- TRUNCATE, when nearly all of its jobs have expired. That gives back a file, whatever was in it; rows that are
-- deleted are written to the log once more, and take up room until a vacuum. What was measured: docs/adr/0006.
--
-- Drawer 0 is for what cannot go like that, and its rows are deleted one by one: the events of jobs that outlive
-- their drawer, and all that there was before this step. So a job's events are in its drawer, or in drawer 0.

ALTER TABLE backburner.job ADD COLUMN drawer smallint NOT NULL DEFAULT 0;
CREATE INDEX job_drawer ON backburner.job (drawer) WHERE drawer > 0;

ALTER TABLE backburner.segment RENAME TO segment_0;
ALTER TABLE backburner.segment_0 RENAME CONSTRAINT segment_pkey TO segment_0_pkey;
ALTER TABLE backburner.segment_0 ADD COLUMN drawer smallint NOT NULL DEFAULT 0;

CREATE TABLE backburner.segment (
    job       bigint   NOT NULL,
    first_seq bigint   NOT NULL,
    last_seq  bigint   NOT NULL,
    events    bytea    NOT NULL,
    -- Gateways from before this step know no drawers: what they append lies in drawer 0.
    drawer    smallint NOT NULL DEFAULT 0,
    CONSTRAINT segment_check CHECK (last_seq >= first_seq)
) PARTITION BY LIST (drawer);

ALTER TABLE backburner.segment ATTACH PARTITION backburner.segment_0 FOR VALUES IN (0);
-- No vacuum for what is new: it will not be old. And no statistics: all is found by its key, and each time that they
-- change every statement is planned anew.
CREATE TABLE backburner.segment_1 PARTITION OF backburner.segment (PRIMARY KEY (job, first_seq)) FOR VALUES IN (1)
    WITH (autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_threshold = 2000000000);
CREATE TABLE backburner.segment_2 PARTITION OF backburner.segment (PRIMARY KEY (job, first_seq)) FOR VALUES IN (2)
    WITH (autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_threshold = 2000000000);
CREATE TABLE backburner.segment_3 PARTITION OF backburner.segment (PRIMARY KEY (job, first_seq)) FOR VALUES IN (3)
    WITH (autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_threshold = 2000000000);
CREATE TABLE backburner.segment_4 PARTITION OF backburner.segment (PRIMARY KEY (job, first_seq)) FOR VALUES IN (4)
    WITH (autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_threshold = 2000000000);
CREATE TABLE backburner.segment_5 PARTITION OF backburner.segment (PRIMARY KEY (job, first_seq)) FOR VALUES IN (5)
    WITH (autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_threshold = 2000000000);
CREATE TABLE backburner.segment_6 PARTITION OF backburner.segment (PRIMARY KEY (job, first_seq)) FOR VALUES IN (6)
    WITH (autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_threshold = 2000000000);

CREATE TABLE backburner.drawer (
    number   smallint PRIMARY KEY,
    state    text     NOT NULL CHECK (state IN ('empty', 'open', 'closed')),
    since_ms bigint   NOT NULL DEFAULT 0,
    -- How many jobs it had when it was closed.
    jobs     bigint   NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX drawer_open ON backburner.drawer (state) WHERE state = 'open';
INSERT INTO backburner.drawer VALUES (1, 'open'), (2, 'empty'), (3, 'empty'), (4, 'empty'), (5, 'empty'), (6, 'empty');

-- Accept a job. Returns what came of it: `created`, `full`, `full_of_tenant`, `gone`, `reused`, or `earlier` and the
-- id of the job that the same key made.
CREATE OR REPLACE FUNCTION backburner.create_job(
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
    v_drawer    smallint;
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
    v_drawer := coalesce((SELECT number FROM backburner.drawer WHERE state = 'open'), 0);
    INSERT INTO backburner.job
        (id, tenant, fingerprint, previous, backend, model, priority, status, turn, drawer, next_seq, is_background,
         is_streamed, is_followable, is_rerunnable, created_at_ms, deadline_ms)
    VALUES
        (p_id, p_tenant, p_fingerprint, v_previous, p_backend, p_model, p_priority, 'queued',
         backburner.turn_of(p_backend), v_drawer, p_next_seq, p_is_background, p_is_streamed, p_is_followable,
         p_is_rerunnable, p_created_at_ms, p_deadline_ms)
    RETURNING pk INTO v_pk;
    INSERT INTO backburner.call VALUES
        (v_pk, p_response, p_request, p_input, p_target, p_headers, p_webhook, p_lane);
    INSERT INTO backburner.segment VALUES (v_pk, 0, p_next_seq - 1, p_events, v_drawer);
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

CREATE FUNCTION backburner.is_kept(p_expires_at_ms bigint, p_now_ms bigint) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN p_expires_at_ms IS NULL OR p_expires_at_ms > p_now_ms;

-- Close the open drawer if it has been filled for a quarter of the time for which responses are kept, and there is an
-- empty one. Returns those that may be emptied: what ended before they were closed has expired, and of their jobs one
-- in twenty at most is kept; or twice that time has passed.
CREATE FUNCTION backburner.turn_drawers(p_now_ms bigint) RETURNS SETOF smallint LANGUAGE plpgsql AS $$
DECLARE
    -- By the response that goes last; null if there is none.
    kept_ms bigint := (SELECT expires_at_ms - finished_at_ms FROM backburner.job
                       WHERE expires_at_ms > p_now_ms ORDER BY expires_at_ms DESC LIMIT 1);
    filled  smallint;
    next    smallint;
BEGIN
    SELECT number INTO filled
    FROM backburner.drawer
    WHERE state = 'open' AND since_ms <= p_now_ms - greatest(kept_ms / 4, 15000)
    FOR UPDATE SKIP LOCKED;
    SELECT min(number) INTO next FROM backburner.drawer WHERE state = 'empty';
    IF filled IS NOT NULL AND next IS NOT NULL
       AND EXISTS (SELECT 1 FROM backburner.segment WHERE drawer = filled)
    THEN
        UPDATE backburner.drawer
        SET state = 'closed', since_ms = p_now_ms,
            jobs = (SELECT count(*) FROM backburner.job WHERE drawer > 0 AND drawer = filled)
        WHERE number = filled;
        UPDATE backburner.drawer SET state = 'open', since_ms = p_now_ms WHERE number = next;
    END IF;
    RETURN QUERY
    SELECT number
    FROM backburner.drawer
    WHERE state = 'closed' AND since_ms <= p_now_ms - coalesce(kept_ms, 0)
      AND (since_ms <= p_now_ms - 2 * kept_ms
           OR jobs >= 20 * (SELECT count(*) FROM backburner.job
                            WHERE drawer > 0 AND drawer = number AND backburner.is_kept(expires_at_ms, p_now_ms)))
    ORDER BY since_ms;
END $$;

-- Bring events of a job from its drawer to drawer 0, so many rows at most. Its row is held meanwhile: nobody appends to
-- it, or rewinds it. False: no job is kept there that nobody else has in hand. One that expires within a minute is left
-- where it is, so that no sweep takes its row at the same moment.
CREATE FUNCTION backburner.move_on(p_drawer smallint, p_now_ms bigint, p_limit integer) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_pk  bigint;
    moved bigint;
BEGIN
    SELECT pk INTO v_pk
    FROM backburner.job
    WHERE drawer > 0 AND drawer = p_drawer AND backburner.is_kept(expires_at_ms, p_now_ms + 60000)
    ORDER BY pk
    LIMIT 1
    FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    WITH piece AS (
        DELETE FROM backburner.segment
        WHERE drawer = p_drawer AND job = v_pk AND first_seq IN (
            SELECT first_seq FROM backburner.segment
            WHERE drawer = p_drawer AND job = v_pk ORDER BY first_seq LIMIT p_limit)
        RETURNING job, first_seq, last_seq, events)
    INSERT INTO backburner.segment SELECT job, first_seq, last_seq, events, 0 FROM piece;
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved < p_limit THEN
        UPDATE backburner.job SET drawer = 0 WHERE pk = v_pk;
    END IF;
    RETURN true;
END $$;

-- Empty a closed drawer, unless somebody reads in it for longer than others can wait, or something in it is kept.
CREATE FUNCTION backburner.empty_drawer(p_drawer smallint, p_now_ms bigint) RETURNS boolean LANGUAGE plpgsql
SET lock_timeout = '50ms' AS $$
BEGIN
    PERFORM FROM backburner.drawer WHERE number = p_drawer AND state = 'closed' FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    CASE p_drawer
        WHEN 1 THEN TRUNCATE backburner.segment_1;
        WHEN 2 THEN TRUNCATE backburner.segment_2;
        WHEN 3 THEN TRUNCATE backburner.segment_3;
        WHEN 4 THEN TRUNCATE backburner.segment_4;
        WHEN 5 THEN TRUNCATE backburner.segment_5;
        WHEN 6 THEN TRUNCATE backburner.segment_6;
    END CASE;
    -- Looked at only now, when nobody can be writing there.
    IF EXISTS (SELECT 1 FROM backburner.job
               WHERE drawer > 0 AND drawer = p_drawer AND backburner.is_kept(expires_at_ms, p_now_ms))
    THEN
        RAISE lock_not_available;
    END IF;
    UPDATE backburner.drawer SET state = 'empty' WHERE number = p_drawer;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END $$;

-- As before, and in a language whose statements are planned once.
CREATE OR REPLACE FUNCTION backburner.turn_of(p_backend text) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce((SELECT number FROM backburner.turn WHERE backend = p_backend AND tenant = ''), 0);
END $$;

CREATE OR REPLACE FUNCTION backburner.size_of_work(p_pk bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        WITH RECURSIVE chain (pk) AS (
            SELECT previous FROM backburner.job WHERE pk = p_pk AND previous IS NOT NULL
            UNION ALL
            SELECT job.previous FROM chain JOIN backburner.job ON job.pk = chain.pk WHERE job.previous IS NOT NULL)
        SELECT (SELECT length(input) FROM backburner.call WHERE job = p_pk) + coalesce(
            (SELECT sum(length(call.input) + length(result.final))
             FROM chain JOIN backburner.call ON call.job = chain.pk JOIN backburner.result ON result.job = chain.pk),
            0));
END $$;

-- As before, and none of a backend that is paused (engine/orders.py). A pause that was heard of by a gateway may come too
-- late for a claim that is on its way: here it is seen by whoever sees a job that was accepted after it.
CREATE OR REPLACE FUNCTION backburner.first_waiting(
    p_backend text, p_tenant bytea, p_priority integer, p_after bigint, p_attempts_max integer, p_now_ms bigint,
    p_accepted_before_ms bigint, OUT pk bigint, OUT turn bigint
) RETURNS SETOF record LANGUAGE sql STABLE AS $$
    SELECT job.pk, job.turn
    FROM backburner.job
    WHERE owner IS NULL AND status IN ('queued', 'in_progress')
      AND backend = p_backend AND tenant = p_tenant AND priority = p_priority AND job.pk > p_after
      AND not_before_ms <= p_now_ms AND deadline_ms > p_now_ms AND created_at_ms <= p_accepted_before_ms
      AND NOT output_shown AND (attempt = 0 OR (is_rerunnable AND attempt < p_attempts_max))
      AND NOT EXISTS (SELECT 1 FROM backburner.meta WHERE key = 'note:pause:' || p_backend)
    ORDER BY job.pk
    LIMIT 1
$$;
