-- Every statement of the store, by name. `:name` are parameters; nothing is ever formatted in.

-- name: lock_migrations
SELECT pg_advisory_xact_lock(1651861092);

-- name: take_time
-- For what is done once: a step may read a whole table, however large it is by now.
SET LOCAL statement_timeout = 0;

-- name: is_known
SELECT to_regclass('backburner.migration') IS NOT NULL;

-- name: make_schema
CREATE SCHEMA backburner;

-- name: make_migrations
CREATE TABLE backburner.migration (number integer PRIMARY KEY, digest bytea NOT NULL);

-- name: migrations
SELECT number, digest FROM backburner.migration ORDER BY number;

-- name: note_migration
INSERT INTO backburner.migration VALUES (:number, :digest);

-- name: put_meta
INSERT INTO backburner.meta VALUES (:key, :value) ON CONFLICT DO NOTHING;

-- name: get_meta
SELECT value FROM backburner.meta WHERE key = :key;

-- name: notes
-- In the order of bytes: that of the database may leave signs out.
SELECT key, value FROM backburner.meta WHERE key COLLATE "C" >= :first AND key COLLATE "C" < :end;

-- name: put_note
INSERT INTO backburner.meta VALUES (:key, :value) ON CONFLICT (key) DO UPDATE SET value = excluded.value;

-- name: take_note
DELETE FROM backburner.meta WHERE key = :key RETURNING value;

-- name: drop_notes
DELETE FROM backburner.meta WHERE key COLLATE "C" >= :first AND key COLLATE "C" < :end;

-- name: server
SELECT current_setting('server_version') AS version, current_setting('server_version_num') AS number,
       current_setting('synchronous_commit') AS synchronous_commit,
       pg_is_in_recovery() AS is_standby;

-- name: time
SELECT backburner.now_ms();

-- name: beat
-- The first is the one that has lived longest: no newcomer takes its place before it knows.
SELECT backburner.beat(:id, :gap_ms) AS is_alive, backburner.now_ms() AS now_ms,
       coalesce((SELECT id FROM backburner.replica ORDER BY steady_since_ms, id LIMIT 1) = :id, false) AS is_first;

-- name: abandon
SELECT backburner.abandon(:id, :dead_after_ms);

-- name: leave
WITH left_behind AS (
    UPDATE backburner.job
    SET owner = NULL, epoch = epoch + 1, turn = backburner.turn_of(backend)
    WHERE owner = :id AND status IN ('queued', 'in_progress'))
DELETE FROM backburner.replica WHERE id = :id;

-- name: agree
-- The others' facts that are not these: by name, how many of them differ.
WITH own AS (UPDATE backburner.replica SET facts = :facts WHERE id = :id)
SELECT mine.key
FROM jsonb_each_text(:facts) AS mine
     JOIN backburner.replica ON replica.id <> :id AND backburner.now_ms() - beat_at_ms < :dead_after_ms
WHERE jsonb_exists(replica.facts, mine.key) AND replica.facts ->> mine.key <> mine.value
LIMIT 1;

-- name: listens_at
SELECT facts ->> ('peer.' || id) AS address FROM backburner.replica WHERE id = :id;

-- name: cut_off
-- A connection of ours that failed: nothing of it may happen any more.
SELECT pg_terminate_backend(:pid, 1000) WHERE EXISTS (SELECT 1 FROM pg_stat_activity
    WHERE pid = :pid AND usename = current_user AND application_name = :name);

-- name: fence
-- A commit for its own sake: once it is confirmed, whatever was committed before it is where `synchronous_commit`
-- wants it, also what was seen of a commit whose wait for a standby was broken off.
SELECT pg_logical_emit_message(true, 'backburner', 'fence');

-- name: create
SELECT verdict, accepted_id
FROM backburner.create_job(
    :id, :tenant, :previous_id, :fingerprint, :backend, :model, :priority, :next_seq, :is_background, :is_streamed,
    :is_followable, :is_rerunnable, :created_at_ms, :deadline_ms, :response, :request, :input, :target, :headers,
    :webhook, :lane, :input_keys, :events, :key_id, :sealed, :key, :key_fingerprint, :total_max, :per_tenant_max);

-- name: was_created
SELECT 'created' AS verdict, id AS accepted_id FROM backburner.job WHERE id = :id AND tenant = :tenant;

-- name: record
SELECT backburner.record_job(
    :id, :tenant, :previous_id, :backend, :model, :priority, :status, :next_seq, :is_background, :is_streamed,
    :is_followable, :is_rerunnable, :created_at_ms, :deadline_ms, :finished_at_ms, :expires_at_ms, :response,
    :request, :input, :target, :headers, :webhook, :lane, :input_keys, :final, :output_keys) AS verdict;

-- name: was_recorded
SELECT 'created' AS verdict FROM backburner.job WHERE id = :id AND tenant = :tenant AND created_at_ms = :created_at_ms;

-- name: find_idempotent
SELECT job.id, idempotency.fingerprint
FROM backburner.idempotency JOIN backburner.job ON job.pk = idempotency.job
WHERE idempotency.tenant = :tenant AND idempotency.key = :key
  AND (job.expires_at_ms IS NULL OR job.expires_at_ms > :now_ms);

-- name: unnamed
SELECT id
FROM backburner.job
WHERE fingerprint = :fingerprint AND tenant = :tenant AND created_at_ms >= :since_ms
  AND (expires_at_ms IS NULL OR expires_at_ms > :now_ms)
ORDER BY pk DESC
LIMIT 1;

-- name: name
WITH named AS (UPDATE backburner.job SET fingerprint = NULL WHERE id = :id AND fingerprint IS NOT NULL)
SELECT 1;

-- name: find_job
-- The only way to a job for a client: its id, its tenant, and not expired or deleted.
SELECT job.*, call.response, result.final
FROM backburner.job JOIN backburner.call ON call.job = job.pk LEFT JOIN backburner.result ON result.job = job.pk
WHERE job.id = :id AND job.tenant = :tenant AND (job.expires_at_ms IS NULL OR job.expires_at_ms > :now_ms);

-- name: works
-- What a claim has taken, with all that its runs need.
SELECT job.*, call.response, NULL::bytea AS final, call.request, call.input, call.target, call.headers,
       secret.key_id, secret.sealed
FROM unnest(:pks::bigint[]) WITH ORDINALITY AS taken (pk, position)
     JOIN backburner.job ON job.pk = taken.pk
     JOIN backburner.call ON call.job = job.pk LEFT JOIN backburner.secret ON secret.job = job.pk
WHERE job.owner = :owner AND job.claimed_by = :claimed_by AND job.status = 'in_progress'
ORDER BY taken.position;

-- name: was_claimed
SELECT array_agg(pk ORDER BY pk) AS taken
FROM backburner.job
WHERE owner = :owner AND claimed_by = :claimed_by AND status IN ('queued', 'in_progress')
HAVING count(*) > 0;

-- name: free_claims
-- Of which the answer was lost: no call was made for them.
UPDATE backburner.job
SET owner = NULL, epoch = epoch + 1, attempt = greatest(0, attempt - 1), turn = backburner.turn_of(backend)
WHERE owner = :owner AND claimed_by = ANY (:lost) AND status IN ('queued', 'in_progress');

-- name: call_by_id
SELECT call.request, call.input, call.target, call.headers, secret.key_id, secret.sealed
FROM backburner.job JOIN backburner.call ON call.job = job.pk LEFT JOIN backburner.secret ON secret.job = job.pk
WHERE job.id = :id;

-- name: turns_before
WITH RECURSIVE chain (pk, depth) AS (
    SELECT previous, 1 FROM backburner.job WHERE id = :id AND tenant = :tenant AND previous IS NOT NULL
    UNION ALL
    SELECT job.previous, chain.depth + 1 FROM chain JOIN backburner.job ON job.pk = chain.pk
    WHERE job.previous IS NOT NULL
)
SELECT job.id, call.input, result.final, job.backend
FROM chain JOIN backburner.job ON job.pk = chain.pk JOIN backburner.call ON call.job = job.pk
     JOIN backburner.result ON result.job = job.pk
ORDER BY chain.depth DESC;

-- name: events_after
-- Status and events from one snapshot, in one statement: a follower that saw them apart could miss the end. Of each
-- response so many segments at most as fill a page, from the one that the cursor is in or before.
SELECT asked.number, job.status, job.next_seq, job.owner, piece.first_seq, piece.last_seq, piece.events
FROM unnest(:ids::text[], :tenants::bytea[], :afters::bigint[], :sizes::bigint[]) WITH ORDINALITY
         AS asked (id, tenant, after, bytes_max, number)
     JOIN backburner.job ON job.id = asked.id AND job.tenant = asked.tenant
                         AND (job.expires_at_ms IS NULL OR job.expires_at_ms > :now_ms)
     LEFT JOIN LATERAL (
         SELECT first_seq, last_seq, events
         FROM (SELECT first_seq, last_seq, events,
                      sum(octet_length(events)) OVER (ORDER BY first_seq) - octet_length(events) AS before
               FROM (SELECT first_seq, last_seq, events
                     FROM backburner.segment
                     WHERE segment.job = job.pk AND segment.drawer IN (job.drawer, 0::smallint) AND last_seq > asked.after
                       AND first_seq >= (SELECT coalesce(max(first_seq), 0) FROM backburner.segment
                                         WHERE segment.job = job.pk AND segment.drawer IN (job.drawer, 0::smallint)
                                           AND first_seq <= asked.after + 1)
                     ORDER BY first_seq
                     LIMIT 256) AS next) AS summed
         WHERE before < asked.bytes_max) AS piece ON true
ORDER BY asked.number, piece.first_seq;

-- name: all_events
SELECT segment.events
FROM backburner.job JOIN backburner.segment ON segment.job = job.pk AND segment.drawer IN (job.drawer, 0::smallint)
WHERE job.id = :id
ORDER BY segment.first_seq;

-- name: events_bytes
SELECT coalesce(sum(octet_length(segment.events)), 0)::bigint AS bytes
FROM backburner.job JOIN backburner.segment ON segment.job = job.pk AND segment.drawer IN (job.drawer, 0::smallint)
WHERE job.id = :id;

-- name: claim
SELECT backburner.claim(:backend, :owner, :claimed_by, :limit, :running_max, :bytes_max, :attempts_max, :now_ms,
                        :accepted_before_ms, :resting) AS taken;

-- name: append
-- The events of many runs, one to a job, by one statement. A job in progress is put in words by which no index of live
-- jobs can be used: each is found by its id, also by a plan that was made when there were few.
WITH run AS (
    SELECT * FROM unnest(:ids::text[], :epochs::bigint[], :firsts::bigint[], :nexts::bigint[], :outputs::boolean[],
                         :blocks::bytea[])
        AS run (id, epoch, first_seq, next_seq, has_output, events)),
kept AS (
    UPDATE backburner.job
    SET next_seq = run.next_seq, output_shown = output_shown OR (is_followable AND run.has_output)
    FROM run
    WHERE job.id = run.id AND job.epoch = run.epoch AND job.status <> 'queued' AND job.finished_at_ms IS NULL
      AND job.next_seq = run.first_seq
    RETURNING job.pk, job.drawer, job.id, run.first_seq, run.next_seq, run.events),
stored AS (
    INSERT INTO backburner.segment (job, first_seq, last_seq, events, drawer)
    SELECT pk, first_seq, next_seq - 1, events, drawer FROM kept)
SELECT id FROM kept;

-- name: were_appended
SELECT id
FROM unnest(:ids::text[], :epochs::bigint[], :nexts::bigint[]) AS run (id, epoch, next_seq)
     JOIN backburner.job USING (id, epoch, next_seq);

-- name: finish
WITH ended AS (
    UPDATE backburner.job
    SET status = :status, error = :error, next_seq = :next_seq, owner = NULL,
        finished_at_ms = :now_ms, expires_at_ms = :expires_at_ms
    WHERE id = :id AND epoch = :epoch AND status IN ('queued', 'in_progress') AND next_seq = :first_seq
    RETURNING pk, drawer, tenant),
last AS (
    INSERT INTO backburner.segment (job, first_seq, last_seq, events, drawer)
    SELECT pk, :first_seq, :next_seq - 1, :events, drawer FROM ended),
final AS (
    INSERT INTO backburner.result (job, final) SELECT pk, :final FROM ended),
noted AS (
    INSERT INTO backburner.named (job, in_output, tenant, keys)
    SELECT pk, true, tenant, :output_keys::bytea FROM ended WHERE :output_keys::bytea IS NOT NULL)
SELECT EXISTS (SELECT 1 FROM ended) AS is_done;

-- name: was_finished
SELECT true AS is_done
FROM backburner.job
WHERE id = :id AND epoch = :epoch AND status = :status AND next_seq = :next_seq;

-- name: take_over
WITH taken AS (
    UPDATE backburner.job
    SET epoch = epoch + 1, owner = :owner
    WHERE id = :id AND status IN ('queued', 'in_progress') AND epoch = coalesce(:epoch, epoch)
    RETURNING *)
SELECT taken.*, call.response, NULL::bytea AS final
FROM (SELECT 1) AS one LEFT JOIN taken ON true LEFT JOIN backburner.call ON call.job = taken.pk;

-- name: release
-- Give an interrupted, still silent job back. It keeps its place.
WITH released AS (
    UPDATE backburner.job
    SET owner = NULL, epoch = epoch + 1, attempt = greatest(0, attempt - :attempts_returned),
        put_offs = put_offs + :put_offs, not_before_ms = :not_before_ms, turn = backburner.turn_of(backend)
    WHERE id = :id AND epoch = :epoch AND status IN ('queued', 'in_progress')
    RETURNING id)
SELECT EXISTS (SELECT 1 FROM released) AS is_done;

-- name: was_released
SELECT true AS is_done FROM backburner.job WHERE id = :id AND epoch = :epoch + 1 AND owner IS NULL;

-- name: set_priority
WITH moved AS (
    UPDATE backburner.job SET priority = :priority
    WHERE id = :id AND status = 'queued' AND owner IS NULL
    RETURNING id)
SELECT EXISTS (SELECT 1 FROM moved) AS is_done;

-- name: delete
WITH live AS (
    UPDATE backburner.job
    SET status = 'cancelled', epoch = epoch + 1, owner = NULL, finished_at_ms = :now_ms, expires_at_ms = 0
    WHERE id = :id AND tenant = :tenant AND status IN ('queued', 'in_progress')
    RETURNING *),
ended AS (
    UPDATE backburner.job
    SET expires_at_ms = 0
    WHERE id = :id AND tenant = :tenant AND expires_at_ms > :now_ms
    RETURNING id)
SELECT live.*, call.response, NULL::bytea AS final,
       live.id IS NOT NULL OR EXISTS (SELECT 1 FROM ended) AS is_done
FROM (SELECT 1) AS one LEFT JOIN live ON true LEFT JOIN backburner.call ON call.job = live.pk;

-- name: was_deleted
-- It was live if this was its end: it has the time of it.
SELECT live.*, call.response, NULL::bytea AS final, true AS is_done
FROM backburner.job AS gone
     LEFT JOIN backburner.job AS live ON live.pk = gone.pk AND live.status = 'cancelled' AND live.finished_at_ms = :now_ms
     LEFT JOIN backburner.call ON call.job = live.pk
WHERE gone.id = :id AND gone.tenant = :tenant AND gone.expires_at_ms = 0;

-- name: rewind
UPDATE backburner.job
SET next_seq = :seq
WHERE id = :id AND epoch = :epoch AND status = 'in_progress' AND next_seq >= :seq
RETURNING pk, drawer;

-- name: segments_from
SELECT first_seq, events
FROM backburner.segment
WHERE drawer IN (:drawer::smallint, 0::smallint) AND job = :pk AND last_seq >= :seq
ORDER BY first_seq;

-- name: delete_segments
DELETE FROM backburner.segment WHERE drawer IN (:drawer::smallint, 0::smallint) AND job = :pk AND last_seq >= :seq;

-- name: insert_segment
INSERT INTO backburner.segment (job, first_seq, last_seq, events, drawer)
VALUES (:pk, :first_seq, :last_seq, :events, :drawer);

-- name: orphans
SELECT id
FROM backburner.job
WHERE owner IS NULL AND status = 'in_progress'
  AND NOT (NOT output_shown AND (attempt = 0 OR (is_rerunnable AND attempt < :attempts_max)))
ORDER BY pk
LIMIT :limit;

-- name: of_other_backends
-- Of gateways with other settings one may have it: their facts say so.
SELECT id
FROM backburner.job
WHERE owner IS NULL AND status IN ('queued', 'in_progress') AND NOT backend = ANY (:backends)
  AND NOT EXISTS (SELECT 1 FROM backburner.replica WHERE jsonb_exists(facts, 'backend.' || job.backend))
ORDER BY pk
LIMIT :limit;

-- name: waiting_since
SELECT id
FROM backburner.job
WHERE owner IS NULL AND status IN ('queued', 'in_progress')
  AND backend = :backend AND created_at_ms <= :accepted_before_ms
ORDER BY pk
LIMIT :limit;

-- name: overdue
SELECT id
FROM backburner.job
WHERE status IN ('queued', 'in_progress') AND deadline_ms <= :now_ms
  -- One that runs elsewhere is ended there, with all that it has produced, if it still lives a moment later.
  AND (owner IS NULL OR owner = :owner OR deadline_ms <= :now_ms - 5000)
ORDER BY deadline_ms
LIMIT :limit;

-- name: sealing_keys
SELECT key_id, count(*) AS jobs FROM backburner.secret GROUP BY key_id;

-- name: purge_segments
-- A piece of what was deleted, or has expired in the drawer that is not emptied whole. Each sweep takes what no other
-- one has in hand. What is looked for is found by an index, job by job: by a join the planner would read all events.
DELETE FROM backburner.segment
USING (
    SELECT piece.drawer, piece.job, piece.first_seq
    FROM (SELECT pk, drawer, expires_at_ms FROM backburner.job
          WHERE expires_at_ms <= :now_ms ORDER BY expires_at_ms) AS gone
         CROSS JOIN LATERAL (
             SELECT drawer, job, first_seq FROM backburner.segment
             WHERE job = gone.pk AND (drawer = 0 OR drawer = gone.drawer AND gone.expires_at_ms = 0)
             LIMIT :limit
             FOR UPDATE SKIP LOCKED) AS piece
    LIMIT :limit) AS gone
WHERE segment.drawer = gone.drawer AND segment.job = gone.job AND segment.first_seq = gone.first_seq
RETURNING 1;

-- name: purge_jobs
-- Rows go, bodies with them, once no later turn leans on them and no event is left but what goes with its drawer.
DELETE FROM backburner.job
WHERE pk IN (
    SELECT gone.pk
    FROM backburner.job AS gone
    WHERE gone.expires_at_ms <= :now_ms
      AND (SELECT true FROM backburner.segment
           WHERE segment.job = gone.pk
             AND (segment.drawer = 0 OR segment.drawer = gone.drawer AND gone.expires_at_ms = 0) LIMIT 1) IS NULL
      AND (SELECT true FROM backburner.job AS later WHERE later.previous = gone.pk LIMIT 1) IS NULL
    ORDER BY gone.expires_at_ms
    LIMIT :limit
    FOR UPDATE OF gone SKIP LOCKED)
RETURNING 1;

-- name: turn_drawers
SELECT number FROM backburner.turn_drawers(:now_ms) AS number;

-- name: move_on
SELECT backburner.move_on(:drawer, :now_ms, :limit);

-- name: empty_drawer
SELECT backburner.empty_drawer(:drawer, :now_ms);

-- name: size
SELECT pg_database_size(current_database());

-- name: named_of_tenant
SELECT job, in_output, keys
FROM backburner.named
WHERE tenant = :tenant AND job <= :before
ORDER BY job DESC, in_output DESC
LIMIT :limit;

-- name: job_by_start
SELECT pk FROM backburner.job WHERE id ~>=~ :start::text AND id ~<~ (:start::text || 'g') AND tenant = :tenant;

-- name: is_shown
SELECT EXISTS (
    SELECT 1 FROM backburner.job WHERE pk = :pk AND (expires_at_ms IS NULL OR expires_at_ms > :now_ms)
    UNION ALL
    SELECT 1
    FROM (WITH RECURSIVE later (pk) AS (
              SELECT pk FROM backburner.job WHERE previous = :pk
              UNION ALL
              SELECT job.pk FROM later JOIN backburner.job ON job.previous = later.pk)
          SELECT pk FROM later) AS later
         JOIN backburner.job ON job.pk = later.pk
    WHERE job.expires_at_ms IS NULL OR job.expires_at_ms > :now_ms);

-- name: size_of_turn
SELECT CASE WHEN :with_input THEN length(call.input) ELSE 0 END
       + CASE WHEN :with_final THEN coalesce(length(result.final), 0) ELSE 0 END AS size
FROM backburner.call LEFT JOIN backburner.result ON result.job = call.job
WHERE call.job = :pk;

-- name: part_of_turn
SELECT job.id, CASE WHEN :with_input THEN call.input END AS input, CASE WHEN :with_final THEN result.final END AS final
FROM backburner.job JOIN backburner.call ON call.job = job.pk LEFT JOIN backburner.result ON result.job = job.pk
WHERE job.pk = :pk;

-- name: list_jobs
-- The ways are those of the other store: from one end of all jobs so many rows; live ones by the indexes of live
-- jobs; by the beginning of an id, out of all. `direction` is 1 for the oldest first.
SELECT * FROM (
    SELECT * FROM (SELECT * FROM backburner.job WHERE :way::text = 'newest' AND pk < :cursor
                   ORDER BY pk DESC LIMIT :looked_at) AS newest
    UNION ALL
    SELECT * FROM (SELECT * FROM backburner.job WHERE :way::text = 'oldest' AND pk > :cursor
                   ORDER BY pk LIMIT :looked_at) AS oldest
    UNION ALL
    SELECT * FROM backburner.job
    WHERE :way::text = 'live' AND owner IS NULL AND status IN ('queued', 'in_progress')
    UNION ALL
    SELECT * FROM backburner.job
    WHERE :way::text = 'live' AND owner IS NOT NULL AND status IN ('queued', 'in_progress')
    UNION ALL
    SELECT * FROM backburner.job
    WHERE :way::text = 'id' AND id ~>=~ :id::text AND id ~<~ (:id::text || '~')) AS found
WHERE is_background AND (expires_at_ms IS NULL OR expires_at_ms > 0)
  AND CASE WHEN :direction::integer = 1 THEN pk > :cursor ELSE pk < :cursor END
  AND (:id::text IS NULL OR left(id, length(:id::text)) = :id::text)
  AND (:statuses::text[] IS NULL OR status = ANY (:statuses::text[]))
  AND (:backend::text IS NULL OR backend = :backend::text) AND (:model::text IS NULL OR model = :model::text)
  AND (:error::text IS NULL OR error = :error::text)
  AND (:tenant::text IS NULL OR left(encode(tenant, 'hex'), length(:tenant::text)) = :tenant::text)
  AND (:created_since_ms::bigint IS NULL OR created_at_ms >= :created_since_ms::bigint)
  AND (:created_before_ms::bigint IS NULL OR created_at_ms < :created_before_ms::bigint)
ORDER BY pk * :direction::integer
LIMIT :limit;

-- name: count_ids
-- Jobs whose id begins so; not further than it matters.
SELECT count(*) AS jobs
FROM (SELECT 1 FROM backburner.job
      WHERE id ~>=~ :id::text AND id ~<~ (:id::text || '~') LIMIT :looked_at) AS begun;

-- name: last_looked_at
(SELECT pk FROM backburner.job WHERE :way::text = 'newest' AND pk < :cursor
 ORDER BY pk DESC LIMIT 1 OFFSET :looked_at::bigint - 1)
UNION ALL
(SELECT pk FROM backburner.job WHERE :way::text = 'oldest' AND pk > :cursor
 ORDER BY pk LIMIT 1 OFFSET :looked_at::bigint - 1);

-- name: details
-- All of one job that is no content. How long its events are is known without reading them.
SELECT job.*, job.owner IS NOT NULL AS is_owned, call.webhook IS NOT NULL AS is_told, earlier.id AS previous_id,
       (SELECT coalesce(sum(length(events)), 0) FROM backburner.segment
        WHERE segment.job = job.pk AND segment.drawer IN (job.drawer, 0::smallint)) AS events_bytes,
       CASE WHEN job.owner IS NULL AND job.status IN ('queued', 'in_progress') THEN
           (SELECT count(*) FROM backburner.job AS other
            WHERE other.owner IS NULL AND other.status IN ('queued', 'in_progress')
              AND other.backend = job.backend AND other.tenant = job.tenant
              AND (other.priority = job.priority AND other.pk < job.pk OR other.priority > job.priority))
       ELSE 0 END AS ahead
FROM backburner.job JOIN backburner.call ON call.job = job.pk
     LEFT JOIN backburner.job AS earlier ON earlier.pk = job.previous
WHERE job.id = :id AND job.is_background AND (job.expires_at_ms IS NULL OR job.expires_at_ms > 0);

-- name: later_turns
SELECT id FROM backburner.job WHERE previous = :pk AND (expires_at_ms IS NULL OR expires_at_ms > 0)
ORDER BY pk DESC LIMIT :limit;

-- name: crowds
-- All live jobs, as many as the settings let wait and run.
SELECT backend, tenant, model, count(*) FILTER (WHERE owner IS NULL) AS waiting,
       count(*) FILTER (WHERE owner IS NOT NULL) AS running,
       min(created_at_ms) FILTER (WHERE owner IS NULL) AS oldest_waiting_ms
FROM (SELECT backend, tenant, model, owner, created_at_ms FROM backburner.job
      WHERE owner IS NULL AND status IN ('queued', 'in_progress')
      UNION ALL
      SELECT backend, tenant, model, owner, created_at_ms FROM backburner.job
      WHERE owner IS NOT NULL AND status IN ('queued', 'in_progress')) AS live
GROUP BY backend, tenant, model
ORDER BY count(*) DESC
LIMIT :limit;

-- name: waiting_jobs
SELECT backend, count(*) AS jobs, min(created_at_ms) AS oldest_ms,
       count(*) FILTER (WHERE not_before_ms > :now_ms) AS put_off,
       count(*) FILTER (WHERE status = 'queued') AS queued,
       min(created_at_ms) FILTER (WHERE status = 'queued') AS oldest_queued_ms
FROM backburner.job
WHERE owner IS NULL AND status IN ('queued', 'in_progress')
GROUP BY backend;

-- name: waiting_of_callers
SELECT backend, tenant, count(*) AS jobs
FROM backburner.job
WHERE owner IS NULL AND status IN ('queued', 'in_progress') AND tenant = ANY (:tenants) AND not_before_ms <= :now_ms
GROUP BY backend, tenant;

-- name: count_owned
SELECT status, count(*) AS jobs
FROM backburner.job
WHERE owner IS NOT NULL AND status IN ('queued', 'in_progress')
GROUP BY status;

-- name: count_ended
SELECT status, count(*) AS jobs
FROM backburner.job
WHERE expires_at_ms > :now_ms AND expires_at_ms > 0
GROUP BY status;

-- name: put_endpoint
INSERT INTO backburner.endpoint (name, statuses, tenants, fingerprint)
VALUES (:name, :statuses, :tenants, :fingerprint)
ON CONFLICT (name) DO UPDATE
SET statuses = excluded.statuses, tenants = excluded.tenants, fingerprint = excluded.fingerprint,
    disabled_at_ms = CASE WHEN endpoint.fingerprint = excluded.fingerprint THEN endpoint.disabled_at_ms END;

-- name: lock_outbox
SELECT pg_advisory_xact_lock(1651861095);

-- name: drop_other_endpoints
DELETE FROM backburner.endpoint WHERE NOT name = ANY (:names);

-- name: probe_all
UPDATE backburner.standing SET probe_at_ms = 0 WHERE down_since_ms IS NOT NULL;

-- name: due_by
UPDATE backburner.delivery SET due_at_ms = :due_by_ms WHERE due_at_ms > :due_by_ms AND due_at_ms > 0;

-- name: due_lanes
-- Lanes in which something may be sent, with the time since when: those of endpoints that the asking gateway knows
-- and that are not disabled, and of callers.
WITH RECURSIVE lane (name) AS (
    (SELECT lane FROM backburner.delivery ORDER BY lane LIMIT 1)
    UNION ALL
    SELECT (SELECT lane FROM backburner.delivery WHERE delivery.lane > lane.name ORDER BY lane LIMIT 1)
    FROM lane WHERE lane.name IS NOT NULL),
known AS (
    SELECT lane.name, standing.down_since_ms,
           greatest(coalesce(standing.probe_at_ms, 0), coalesce(
               (SELECT 0 FROM backburner.delivery WHERE delivery.lane = lane.name AND due_at_ms = 0 LIMIT 1),
               (SELECT min(due_at_ms) FROM backburner.delivery
                WHERE delivery.lane = lane.name AND due_at_ms > 0))) AS due_at_ms,
           left(lane.name, 1) = '@' AS is_callers
    FROM lane LEFT JOIN backburner.standing ON standing.lane = lane.name
    WHERE lane.name IS NOT NULL)
SELECT name, down_since_ms, due_at_ms, is_callers
FROM known
WHERE is_callers OR EXISTS (SELECT 1 FROM backburner.endpoint
                            WHERE endpoint.name = known.name AND disabled_at_ms IS NULL AND name = ANY (:names))
ORDER BY is_callers, due_at_ms;

-- name: due_put_off
SELECT * FROM backburner.delivery
WHERE lane = :lane AND due_at_ms > 0 AND due_at_ms <= :now_ms AND leased_until_ms <= :now_ms
ORDER BY due_at_ms
LIMIT :limit;

-- name: due_fresh
SELECT * FROM backburner.delivery
WHERE lane = :lane AND due_at_ms = 0 AND leased_until_ms <= :now_ms
ORDER BY ended_at_ms, pk
LIMIT :limit;

-- name: leased_by_lane
SELECT lane, count(*) AS jobs
FROM backburner.delivery
WHERE leased_until_ms > 0 AND leased_until_ms > :now_ms
GROUP BY lane;

-- name: lease_deliveries
UPDATE backburner.delivery SET leased_until_ms = :until_ms, leased_by = :owner WHERE pk = ANY (:pks);

-- name: standing
SELECT strikes, probes, probe_at_ms, down_since_ms FROM backburner.standing WHERE lane = :lane;

-- name: put_standing
INSERT INTO backburner.standing VALUES (:lane, :strikes, :probes, :probe_at_ms, :down_since_ms)
ON CONFLICT (lane) DO UPDATE
SET strikes = excluded.strikes, probes = excluded.probes, probe_at_ms = excluded.probe_at_ms,
    down_since_ms = excluded.down_since_ms;

-- name: drop_standing
DELETE FROM backburner.standing WHERE lane = :lane;

-- name: drop_idle_standings
DELETE FROM backburner.standing WHERE NOT EXISTS (SELECT 1 FROM backburner.delivery WHERE delivery.lane = standing.lane);

-- name: has_deliveries
SELECT EXISTS (SELECT 1 FROM backburner.delivery WHERE lane = :lane);

-- name: remove_delivery
DELETE FROM backburner.delivery WHERE response = :response AND lane = :lane;

-- name: put_off_delivery
UPDATE backburner.delivery
SET attempts = attempts + 1, due_at_ms = :due_at_ms, failure = :failure, leased_until_ms = 0, leased_by = NULL
WHERE response = :response AND lane = :lane;

-- name: disable_endpoint
UPDATE backburner.endpoint SET disabled_at_ms = :now_ms WHERE name = :name AND disabled_at_ms IS NULL RETURNING name;

-- name: enable_endpoint
UPDATE backburner.endpoint SET disabled_at_ms = NULL WHERE name = :name RETURNING name;

-- name: hurry_lane
UPDATE backburner.delivery SET due_at_ms = 1 WHERE lane = :lane AND due_at_ms > 1;

-- name: probe_lanes_of
UPDATE backburner.standing SET probe_at_ms = 0
WHERE lane IN (SELECT lane FROM backburner.delivery WHERE response = :response);

-- name: hurry_response
UPDATE backburner.delivery SET due_at_ms = 1 WHERE response = :response RETURNING lane;

-- name: deliveries_about
SELECT * FROM backburner.delivery WHERE response = :response ORDER BY lane COLLATE "C";

-- name: tell_endpoints_again
-- As `end_job` does it, of a job that has ended. In one order: two who ask at once must not wait for each other.
INSERT INTO backburner.delivery (response, lane, status, ended_at_ms, due_at_ms)
SELECT job.id, name, job.status, job.finished_at_ms, 1
FROM backburner.job CROSS JOIN backburner.endpoint
WHERE job.id = :response AND job.is_background AND job.expires_at_ms > 0 AND job.status = ANY (statuses)
  AND (cardinality(tenants) = 0 OR left(encode(job.tenant, 'hex'), 8) = ANY (tenants))
ORDER BY name
ON CONFLICT (response, lane) DO UPDATE SET due_at_ms = 1
RETURNING lane;

-- name: tell_caller_again
INSERT INTO backburner.delivery (response, lane, url, status, ended_at_ms, due_at_ms)
SELECT job.id, lane, webhook, job.status, job.finished_at_ms, 1
FROM backburner.job JOIN backburner.call ON call.job = job.pk
WHERE job.id = :response AND job.is_background AND job.expires_at_ms > 0 AND webhook IS NOT NULL
ON CONFLICT (response, lane) DO UPDATE SET due_at_ms = 1
RETURNING lane;

-- name: give_up_old
WITH old AS (
    SELECT pk FROM backburner.delivery WHERE ended_at_ms <= :ended_before_ms ORDER BY ended_at_ms, pk LIMIT :limit
    FOR UPDATE SKIP LOCKED),
given_up AS (
    DELETE FROM backburner.delivery WHERE pk IN (SELECT pk FROM old) RETURNING pk, response, lane, ended_at_ms)
SELECT response, lane FROM given_up ORDER BY ended_at_ms, pk;

-- name: give_up_surplus
WITH old AS (
    SELECT pk FROM backburner.delivery WHERE lane = :lane ORDER BY ended_at_ms, pk LIMIT :limit FOR UPDATE SKIP LOCKED),
given_up AS (
    DELETE FROM backburner.delivery WHERE pk IN (SELECT pk FROM old) RETURNING pk, response, lane, ended_at_ms)
SELECT response, lane FROM given_up ORDER BY ended_at_ms, pk;

-- name: waiting_by_lane
SELECT delivery.lane, count(*) AS waiting, min(ended_at_ms) AS oldest_ms, max(standing.down_since_ms) AS down_since_ms
FROM backburner.delivery LEFT JOIN backburner.standing ON standing.lane = delivery.lane
GROUP BY delivery.lane
ORDER BY delivery.lane COLLATE "C";

-- name: disabled_endpoints
SELECT name, disabled_at_ms FROM backburner.endpoint WHERE disabled_at_ms IS NOT NULL ORDER BY name COLLATE "C";

-- name: failing_deliveries
SELECT * FROM backburner.delivery WHERE due_at_ms > 0 AND attempts > 0 ORDER BY ended_at_ms DESC LIMIT :limit;

-- name: notify
SELECT pg_notify('backburner', payload) FROM unnest(:payloads::text[]) AS payload;
