-- Every statement of the store, by name. `:name` are parameters; nothing is ever formatted in.

-- name: insert_job
-- Queued, or claimed at once; or, for a plain response that is kept as a turn, ended.
INSERT INTO job (id, tenant, fingerprint, previous, backend, model, priority, status, epoch, owner, attempt, next_seq,
                 is_background, is_streamed, is_followable, is_rerunnable,
                 created_at_ms, deadline_ms, started_at_ms, finished_at_ms, expires_at_ms)
VALUES (:id, :tenant, :fingerprint,
        (SELECT pk FROM job WHERE id = :previous_id AND tenant = :tenant
                              AND (expires_at_ms IS NULL OR expires_at_ms > :created_at_ms)),
        :backend, :model, :priority, :status, :is_claimed, :owner, :is_claimed, :next_seq,
        :is_background, :is_streamed, :is_followable, :is_rerunnable,
        :created_at_ms, :deadline_ms, iif(:is_claimed, :created_at_ms, NULL), :finished_at_ms, :expires_at_ms)
RETURNING pk, previous;

-- name: insert_call
INSERT INTO call (job, response, request, input, target, headers, webhook, lane)
VALUES (:pk, :response, :request, :input, :target, :headers, :webhook, :lane);

-- name: insert_secret
INSERT INTO secret (job, key_id, sealed) VALUES (:pk, :key_id, :sealed);

-- name: sealing_keys
SELECT key_id, count(*) AS jobs FROM secret GROUP BY key_id;

-- name: find_idempotent
SELECT job.id, idempotency.fingerprint,
       (job.expires_at_ms IS NULL OR job.expires_at_ms > :now_ms) AS is_there
FROM idempotency JOIN job ON job.pk = idempotency.job
WHERE idempotency.tenant = :tenant AND idempotency.key = :key;

-- name: put_idempotent
INSERT OR REPLACE INTO idempotency (tenant, key, fingerprint, job) VALUES (:tenant, :key, :fingerprint, :pk);

-- name: unnamed
SELECT id
FROM job
WHERE fingerprint = :fingerprint AND tenant = :tenant AND created_at_ms >= :since_ms
  AND (expires_at_ms IS NULL OR expires_at_ms > :now_ms)
ORDER BY pk DESC
LIMIT 1;

-- name: name
UPDATE job SET fingerprint = NULL WHERE id = :id;

-- name: insert_segment
INSERT INTO segment (job, first_seq, last_seq, events) VALUES (:pk, :first_seq, :last_seq, :events);

-- name: insert_result
INSERT INTO result (job, final) VALUES (:pk, :final);

-- name: insert_named
INSERT INTO named (job, in_output, tenant, keys) VALUES (:pk, :in_output, :tenant, :keys);

-- name: named_of_tenant
SELECT job, in_output, keys
FROM named
WHERE tenant = :tenant
ORDER BY job DESC, in_output DESC
LIMIT :limit;

-- name: job_by_start
-- A response of a tenant whose id begins so.
SELECT pk FROM job WHERE id >= :start AND id < :start || 'g' AND tenant = :tenant;

-- name: is_shown
-- Whether a response can be seen, as itself or among the earlier turns of one that can be.
SELECT 1 FROM job WHERE pk = :pk AND (expires_at_ms IS NULL OR expires_at_ms > :now_ms)
UNION ALL
SELECT 1
FROM (WITH RECURSIVE later (pk) AS (
          SELECT pk FROM job WHERE previous = :pk
          UNION ALL
          SELECT job.pk FROM later JOIN job ON job.previous = later.pk)
      SELECT pk FROM later) AS later
     JOIN job ON job.pk = later.pk
WHERE job.expires_at_ms IS NULL OR job.expires_at_ms > :now_ms
LIMIT 1;

-- name: size_of_turn
SELECT :with_input * length(call.input) + :with_final * coalesce(length(result.final), 0) AS size
FROM call LEFT JOIN result ON result.job = call.job
WHERE call.job = :pk;

-- name: part_of_turn
SELECT job.id, iif(:with_input, call.input, NULL) AS input, iif(:with_final, result.final, NULL) AS final
FROM job JOIN call ON call.job = job.pk LEFT JOIN result ON result.job = job.pk
WHERE job.pk = :pk;

-- name: count_queued
-- By all, by a tenant, and whether any waits at a backend.
SELECT (SELECT jobs FROM temp.queued WHERE tenant = x''),
       coalesce((SELECT jobs FROM temp.queued WHERE tenant = :tenant), 0),
       EXISTS (SELECT 1 FROM temp.waiting WHERE backend = :backend);

-- name: find_job
-- The only way to a job for a client: its id, its tenant, and not expired or deleted.
SELECT job.*, call.response, result.final
FROM job JOIN call ON call.job = job.pk LEFT JOIN result ON result.job = job.pk
WHERE job.id = :id AND job.tenant = :tenant AND (job.expires_at_ms IS NULL OR job.expires_at_ms > :now_ms);

-- name: job_by_id
-- For the gateway's own work (run, recover, expire), where no client is asking.
SELECT job.*, call.response, result.final
FROM job JOIN call ON call.job = job.pk LEFT JOIN result ON result.job = job.pk
WHERE job.id = :id;

-- name: work_by_id
-- The same, with all that a run needs.
SELECT job.*, call.response, NULL AS final, call.request, call.input, call.target, call.headers,
       secret.key_id, secret.sealed
FROM job JOIN call ON call.job = job.pk LEFT JOIN secret ON secret.job = job.pk
WHERE job.id = :id;

-- name: call_by_id
SELECT call.request, call.input, call.target, call.headers, secret.key_id, secret.sealed
FROM job JOIN call ON call.job = job.pk LEFT JOIN secret ON secret.job = job.pk
WHERE job.id = :id;

-- name: turns_before
-- The turns before a response, oldest first, in one read however long the chain is. A turn that has expired
-- or was deleted since is still part of what came after it.
WITH RECURSIVE chain (pk, depth) AS (
    SELECT previous, 1 FROM job WHERE id = :id AND tenant = :tenant AND previous IS NOT NULL
    UNION ALL
    SELECT job.previous, chain.depth + 1 FROM chain JOIN job ON job.pk = chain.pk
    WHERE job.previous IS NOT NULL
)
SELECT job.id, call.input, result.final, job.backend
FROM chain JOIN job ON job.pk = chain.pk JOIN call ON call.job = job.pk JOIN result ON result.job = job.pk
ORDER BY chain.depth DESC;

-- name: events_after
-- Status and events from one snapshot, in one statement: a follower that saw them apart could miss the end.
SELECT job.status, job.next_seq, segment.first_seq, segment.last_seq, segment.events
FROM job LEFT JOIN segment ON segment.job = job.pk AND segment.last_seq > :after
    -- Straight to the segment that the cursor is in or before: a late page costs no more than the first.
    AND segment.first_seq >= (SELECT coalesce(max(first_seq), 0)
                              FROM segment WHERE job = job.pk AND first_seq <= :after + 1)
WHERE job.id = :id AND job.tenant = :tenant AND (job.expires_at_ms IS NULL OR job.expires_at_ms > :now_ms)
ORDER BY segment.first_seq;

-- name: all_events
SELECT segment.events
FROM job JOIN segment ON segment.job = job.pk
WHERE job.id = :id
ORDER BY segment.first_seq;

-- name: events_bytes
SELECT coalesce(sum(length(segment.events)), 0) AS bytes
FROM job JOIN segment ON segment.job = job.pk
WHERE job.id = :id;

-- name: next_job
-- Whose turn it is at a backend, in the order of temp.waiting, and the job to start: the oldest that no backend has
-- accepted yet, or that is silent and whose run was lost. A tenant's higher tier always comes before its lower ones.
SELECT waiting.tenant, waiting.priority, first.pk
FROM temp.waiting CROSS JOIN job AS first ON first.pk = (
    SELECT pk
    FROM job
    WHERE owner IS NULL AND status IN ('queued', 'in_progress')
      AND backend = waiting.backend AND priority = waiting.priority AND tenant = waiting.tenant
      AND not_before_ms <= :now_ms AND deadline_ms > :now_ms AND created_at_ms <= :accepted_before_ms
      AND output_shown = 0 AND (attempt = 0 OR (is_rerunnable = 1 AND attempt < :attempts_max))
    ORDER BY pk
    LIMIT 1)
WHERE waiting.backend = :backend
  AND lower(hex(waiting.tenant)) NOT IN (SELECT value FROM json_each(:resting))
ORDER BY waiting.load, waiting.turn, waiting.priority DESC, waiting.since
LIMIT 1;

-- name: count_running
SELECT coalesce(sum(jobs), 0) AS jobs FROM temp.running WHERE backend = :backend;

-- name: take_turn
-- It is now the tenant's turn, or later; its next one comes the later, the lower the tier is.
INSERT OR REPLACE INTO temp.turn (backend, tenant, number)
SELECT :backend, whose.column1,
       whose.column2 + coalesce(
           (SELECT max(number) FROM temp.turn WHERE backend = :backend AND tenant IN (x'', :tenant)), 0)
FROM (VALUES (x'', 0), (:tenant, 4 >> :priority)) AS whose;

-- name: forget_turns
-- One that is not ahead of now says nothing: see the trigger `tenant_joins`.
DELETE FROM temp.turn
WHERE backend = :backend AND tenant <> x''
  AND number <= (SELECT number FROM temp.turn WHERE backend = :backend AND tenant = x'');

-- name: claim
UPDATE job
SET status = 'in_progress', owner = :owner, epoch = epoch + 1, attempt = attempt + 1,
    started_at_ms = coalesce(started_at_ms, :now_ms)
WHERE pk = :pk
RETURNING id;

-- name: segments_from
SELECT pk, first_seq, last_seq, events FROM segment
WHERE job = :pk AND last_seq >= :seq
ORDER BY first_seq;

-- name: delete_segment
DELETE FROM segment WHERE pk = :pk;

-- name: rewind
UPDATE job
SET next_seq = :seq
WHERE id = :id AND epoch = :epoch AND status = 'in_progress' AND next_seq >= :seq
RETURNING pk;

-- name: append_segments
-- The events of many runs, one to a job, by two statements: each statement costs more than the rows of it.
-- Before `append`, which moves what it looks at.
WITH row AS (
    SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS epoch,
           json_extract(value, '$[2]') AS first_seq, json_extract(value, '$[3]') AS next_seq,
           json_extract(value, '$[5]') AS start, json_extract(value, '$[6]') AS size
    FROM json_each(:rows))
INSERT INTO segment (job, first_seq, last_seq, events)
SELECT job.pk, row.first_seq, row.next_seq - 1, substr(:events, row.start, row.size)
FROM row CROSS JOIN job
WHERE job.id = row.id AND job.epoch = row.epoch AND job.status = 'in_progress' AND job.next_seq = row.first_seq;

-- name: append
WITH row AS (
    SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS epoch,
           json_extract(value, '$[2]') AS first_seq, json_extract(value, '$[3]') AS next_seq,
           json_extract(value, '$[4]') AS has_output
    FROM json_each(:rows))
UPDATE job
SET next_seq = row.next_seq, output_shown = max(output_shown, is_followable * row.has_output)
FROM row
WHERE job.id = row.id AND job.epoch = row.epoch AND job.status = 'in_progress' AND job.next_seq = row.first_seq
RETURNING job.id;

-- name: finish
UPDATE job
SET status = :status, error = :error, next_seq = :next_seq, owner = NULL,
    finished_at_ms = :now_ms, expires_at_ms = :expires_at_ms
WHERE id = :id AND epoch = :epoch AND status IN ('queued', 'in_progress') AND next_seq = :first_seq
RETURNING pk;

-- name: take_over
-- The first half of a cancel, a rescue or an expiry: from here on nobody else writes to the job.
UPDATE job
SET epoch = epoch + 1, owner = :owner
WHERE id = :id AND status IN ('queued', 'in_progress') AND epoch = coalesce(:epoch, epoch)
RETURNING id;

-- name: release
-- Give an interrupted, still silent job back. It keeps its place.
UPDATE job
SET owner = NULL, epoch = epoch + 1, attempt = max(0, attempt - :attempts_returned),
    put_offs = put_offs + :put_offs, not_before_ms = :not_before_ms
WHERE id = :id AND epoch = :epoch AND status IN ('queued', 'in_progress')
RETURNING id;

-- name: set_priority
UPDATE job SET priority = :priority WHERE id = :id AND status = 'queued' AND owner IS NULL RETURNING id;

-- name: abandon
-- With the file lock held: whoever else owned a job is dead.
UPDATE job SET owner = NULL, epoch = epoch + 1
WHERE status IN ('queued', 'in_progress') AND owner IS NOT NULL AND (owner <> :owner OR :is_all);

-- name: orphans
-- Live jobs that nobody owns and nobody may claim: their run was lost after its output was shown, or too often.
SELECT id
FROM job
WHERE owner IS NULL AND status = 'in_progress'
  AND NOT (output_shown = 0 AND (attempt = 0 OR (is_rerunnable = 1 AND attempt < :attempts_max)))
ORDER BY pk
LIMIT :limit;

-- name: of_other_backends
-- Live jobs whose backend the settings no longer have. The names come as one JSON list.
SELECT id
FROM job
WHERE owner IS NULL AND status IN ('queued', 'in_progress')
  AND backend NOT IN (SELECT value FROM json_each(:backends))
ORDER BY pk
LIMIT :limit;

-- name: waiting_since
-- Live jobs of a backend that nobody runs, accepted before a time.
SELECT id
FROM job
WHERE owner IS NULL AND status IN ('queued', 'in_progress')
  AND backend = :backend AND created_at_ms <= :accepted_before_ms
ORDER BY pk
LIMIT :limit;

-- name: overdue
SELECT id
FROM job
WHERE status IN ('queued', 'in_progress') AND deadline_ms <= :now_ms
ORDER BY deadline_ms
LIMIT :limit;

-- name: delete_live
UPDATE job
SET status = 'cancelled', epoch = epoch + 1, owner = NULL, finished_at_ms = :now_ms, expires_at_ms = 0
WHERE id = :id AND tenant = :tenant AND status IN ('queued', 'in_progress')
RETURNING id;

-- name: delete_ended
UPDATE job
SET expires_at_ms = 0
WHERE id = :id AND tenant = :tenant AND expires_at_ms > :now_ms
RETURNING id;

-- name: expired_segments
-- What a sweep is to take, read apart from the writing: events first, and how large each piece is.
SELECT segment.pk, length(segment.events) AS size
FROM job JOIN segment ON segment.job = job.pk
WHERE job.expires_at_ms <= :now_ms
LIMIT :limit;

-- name: purge_segment
-- Asked again, of what may have become another's row since.
DELETE FROM segment
WHERE pk = :pk AND EXISTS (SELECT 1 FROM job WHERE job.pk = segment.job AND job.expires_at_ms <= :now_ms);

-- name: expired_jobs
-- Rows go, bodies with them, once no later turn leans on them and no event is left.
SELECT gone.pk, length(call.request) + length(call.input) + coalesce(length(result.final), 0) AS size
FROM job AS gone JOIN call ON call.job = gone.pk LEFT JOIN result ON result.job = gone.pk
WHERE gone.expires_at_ms <= :now_ms
  AND NOT EXISTS (SELECT 1 FROM segment WHERE segment.job = gone.pk)
  AND NOT EXISTS (SELECT 1 FROM job AS later WHERE later.previous = gone.pk)
LIMIT :limit;

-- name: purge_job
DELETE FROM job
WHERE pk = :pk AND expires_at_ms <= :now_ms
  AND NOT EXISTS (SELECT 1 FROM job AS later WHERE later.previous = :pk);

-- name: list_jobs
-- Out of so many rows, from one end of all jobs: no index is kept for it. Live ones out of the indexes of live jobs,
-- whose length the settings limit; by the beginning of an id, out of all. `direction` is 1 for the oldest first.
SELECT * FROM (
    SELECT * FROM (SELECT * FROM job WHERE :way = 'newest' AND pk < :cursor ORDER BY pk DESC LIMIT :looked_at)
    UNION ALL
    SELECT * FROM (SELECT * FROM job WHERE :way = 'oldest' AND pk > :cursor ORDER BY pk LIMIT :looked_at)
    UNION ALL
    SELECT * FROM job INDEXED BY job_waiting
    WHERE :way = 'live' AND owner IS NULL AND status IN ('queued', 'in_progress')
    UNION ALL
    SELECT * FROM job INDEXED BY job_owned
    WHERE :way = 'live' AND owner IS NOT NULL AND status IN ('queued', 'in_progress')
    UNION ALL
    SELECT * FROM job WHERE :way = 'id' AND id >= :id AND id < :id || '~')
WHERE is_background = 1 AND (expires_at_ms IS NULL OR expires_at_ms > 0)
  AND iif(:direction = 1, pk > :cursor, pk < :cursor)
  AND (:id IS NULL OR substr(id, 1, length(:id)) = :id)
  AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
  AND (:backend IS NULL OR backend = :backend) AND (:model IS NULL OR model = :model)
  AND (:error IS NULL OR error = :error)
  AND (:tenant IS NULL OR lower(substr(hex(tenant), 1, length(:tenant))) = :tenant)
  AND (:created_since_ms IS NULL OR created_at_ms >= :created_since_ms)
  AND (:created_before_ms IS NULL OR created_at_ms < :created_before_ms)
ORDER BY pk * :direction
LIMIT :limit;

-- name: count_ids
-- Jobs whose id begins so; not further than it matters.
SELECT count(*) FROM (SELECT 1 FROM job WHERE id >= :id AND id < :id || '~' LIMIT :looked_at);

-- name: last_looked_at
SELECT * FROM (SELECT pk FROM job WHERE :way = 'newest' AND pk < :cursor
               ORDER BY pk DESC LIMIT 1 OFFSET :looked_at - 1)
UNION ALL
SELECT * FROM (SELECT pk FROM job WHERE :way = 'oldest' AND pk > :cursor
               ORDER BY pk LIMIT 1 OFFSET :looked_at - 1);

-- name: details
-- All of one job that is no content.
SELECT job.*, job.owner IS NOT NULL AS is_owned, call.webhook IS NOT NULL AS is_told, earlier.id AS previous_id,
       (SELECT coalesce(sum(length(events)), 0) FROM segment WHERE segment.job = job.pk) AS events_bytes,
       iif(job.owner IS NULL AND job.status IN ('queued', 'in_progress'),
           (SELECT count(*) FROM job AS other INDEXED BY job_waiting
            WHERE other.owner IS NULL AND other.status IN ('queued', 'in_progress')
              AND other.backend = job.backend AND other.tenant = job.tenant
              AND (other.priority = job.priority AND other.pk < job.pk OR other.priority > job.priority)),
           0) AS ahead
FROM job JOIN call ON call.job = job.pk LEFT JOIN job AS earlier ON earlier.pk = job.previous
WHERE job.id = :id AND job.is_background = 1 AND (job.expires_at_ms IS NULL OR job.expires_at_ms > 0);

-- name: later_turns
SELECT id FROM job WHERE previous = :pk AND (expires_at_ms IS NULL OR expires_at_ms > 0)
ORDER BY pk DESC LIMIT :limit;

-- name: crowds
-- All live jobs, as many as the settings let wait and run.
SELECT backend, tenant, model, sum(owner IS NULL) AS waiting, sum(owner IS NOT NULL) AS running,
       min(iif(owner IS NULL, created_at_ms, NULL)) AS oldest_waiting_ms
FROM (SELECT * FROM job INDEXED BY job_waiting
      WHERE owner IS NULL AND status IN ('queued', 'in_progress')
      UNION ALL
      SELECT * FROM job INDEXED BY job_owned
      WHERE owner IS NOT NULL AND status IN ('queued', 'in_progress'))
GROUP BY backend, tenant, model
ORDER BY count(*) DESC
LIMIT :limit;

-- name: waiting_jobs
-- By backend, all that nobody runs: one walk through one index, which is as long as the settings let the queue be.
SELECT backend, count(*) AS jobs, min(created_at_ms) AS oldest_ms,
       sum(not_before_ms > :now_ms) AS put_off,
       sum(status = 'queued') AS queued,
       min(iif(status = 'queued', created_at_ms, NULL)) AS oldest_queued_ms
FROM job INDEXED BY job_waiting
WHERE owner IS NULL AND status IN ('queued', 'in_progress')
GROUP BY backend;

-- name: waiting_of_caller
SELECT count(*)
FROM job INDEXED BY job_waiting
WHERE owner IS NULL AND status IN ('queued', 'in_progress')
  AND backend = :backend AND priority IN (0, 1, 2) AND tenant = :tenant AND not_before_ms <= :now_ms;

-- name: count_owned
SELECT status, count(*) AS jobs
FROM job INDEXED BY job_owned
WHERE owner IS NOT NULL AND status IN ('queued', 'in_progress')
GROUP BY status;

-- name: count_ended
-- Without those that have expired, and were not purged yet.
SELECT ended.status, ended.jobs - coalesce(expired.jobs, 0) AS jobs
FROM ended LEFT JOIN (
    SELECT status, count(*) AS jobs
    FROM job INDEXED BY job_expiry
    WHERE expires_at_ms > 0 AND expires_at_ms <= :now_ms
    GROUP BY status) AS expired ON expired.status = ended.status;

-- name: get_meta
SELECT value FROM meta WHERE key = :key;

-- name: put_meta
INSERT OR REPLACE INTO meta (key, value) VALUES (:key, :value);

-- name: notes
SELECT key, value FROM meta WHERE key >= :first AND key < :end;

-- name: take_note
DELETE FROM meta WHERE key = :key RETURNING value;

-- name: drop_notes
DELETE FROM meta WHERE key >= :first AND key < :end;

-- name: fence
-- A commit for its own sake: see `connection.fence`.
INSERT OR REPLACE INTO meta (key, value) VALUES ('fence', randomblob(8));

-- name: put_endpoint
-- The same receiver stays disabled; one with another address or other secrets is another one.
INSERT INTO endpoint (name, statuses, tenants, fingerprint)
VALUES (:name, :statuses, :tenants, :fingerprint)
ON CONFLICT (name) DO UPDATE
SET statuses = excluded.statuses, tenants = excluded.tenants, fingerprint = excluded.fingerprint,
    disabled_at_ms = iif(fingerprint = excluded.fingerprint, disabled_at_ms, NULL);

-- name: drop_other_endpoints
DELETE FROM endpoint WHERE name NOT IN (SELECT value FROM json_each(:names));

-- name: probe_all
-- At a start: who was down before it may be well, and another clock may have said when to look.
UPDATE lane SET probe_at_ms = 0 WHERE down_since_ms IS NOT NULL;

-- name: due_by
UPDATE delivery SET due_at_ms = :due_by_ms
WHERE lane IN (SELECT name FROM lane) AND due_at_ms > 0 AND due_at_ms > :due_by_ms;

-- name: due_lanes_of_endpoints
SELECT lane.name, lane.down_since_ms
FROM endpoint JOIN lane ON lane.name = endpoint.name
WHERE endpoint.disabled_at_ms IS NULL AND lane.due_at_ms <= :now_ms
ORDER BY lane.due_at_ms;

-- name: due_lanes_of_callers
-- Not of callers who have as many attempts under way as they may: they come as one JSON list.
SELECT name, down_since_ms
FROM lane INDEXED BY lane_due
WHERE due_at_ms <= :now_ms AND substr(name, 1, 1) = '@'
  AND substr(name, 1, 65) NOT IN (SELECT value FROM json_each(:busy))
ORDER BY due_at_ms
LIMIT :limit;

-- name: due_put_off
SELECT * FROM delivery INDEXED BY delivery_put_off
WHERE lane = :lane AND due_at_ms > 0 AND due_at_ms <= :now_ms AND leased_until_ms <= :now_ms
ORDER BY due_at_ms
LIMIT :limit;

-- name: due_fresh
SELECT * FROM delivery INDEXED BY delivery_fresh
WHERE lane = :lane AND due_at_ms = 0 AND leased_until_ms <= :now_ms
ORDER BY ended_at_ms, pk
LIMIT :limit;

-- name: leased_by_lane
-- Events that are being sent.
SELECT lane, count(*)
FROM delivery INDEXED BY delivery_leased
WHERE leased_until_ms > 0 AND leased_until_ms > :now_ms
GROUP BY lane;

-- name: lease_delivery
UPDATE delivery SET leased_until_ms = :until_ms WHERE pk = :pk;

-- name: free_deliveries
-- At a start: whoever was sending is dead.
UPDATE delivery SET leased_until_ms = 0 WHERE leased_until_ms > 0;

-- name: next_due
SELECT min(due_at_ms) FROM lane WHERE due_at_ms > :now_ms;

-- name: standing
SELECT strikes, probes, probe_at_ms, down_since_ms FROM lane WHERE name = :lane;

-- name: put_standing
UPDATE lane
SET strikes = :strikes, probes = :probes, probe_at_ms = :probe_at_ms, down_since_ms = :down_since_ms
WHERE name = :lane;

-- name: remove_delivery
DELETE FROM delivery WHERE response = :response AND lane = :lane;

-- name: put_off_delivery
UPDATE delivery
SET attempts = attempts + 1, due_at_ms = :due_at_ms, failure = :failure, leased_until_ms = 0
WHERE response = :response AND lane = :lane;

-- name: disable_endpoint
UPDATE endpoint SET disabled_at_ms = :now_ms WHERE name = :name AND disabled_at_ms IS NULL;

-- name: enable_endpoint
UPDATE endpoint SET disabled_at_ms = NULL WHERE name = :name;

-- name: hurry_lane
UPDATE delivery SET due_at_ms = 1 WHERE lane = :lane AND due_at_ms > 1;

-- name: probe_lanes_of
UPDATE lane SET probe_at_ms = 0 WHERE name IN (SELECT lane FROM delivery WHERE response = :response);

-- name: hurry_response
UPDATE delivery SET due_at_ms = 1 WHERE response = :response RETURNING lane;

-- name: deliveries_about
SELECT * FROM delivery WHERE response = :response ORDER BY lane;

-- name: tell_endpoints_again
-- As the trigger `job_ends` does it, of a job that has ended.
INSERT INTO delivery (response, lane, status, ended_at_ms, due_at_ms)
SELECT job.id, name, job.status, job.finished_at_ms, 1
FROM job CROSS JOIN endpoint
WHERE job.id = :response AND job.is_background = 1 AND job.expires_at_ms > 0
  AND job.status IN (SELECT value FROM json_each(statuses))
  AND (tenants = '[]' OR lower(substr(hex(job.tenant), 1, 8)) IN (SELECT value FROM json_each(tenants)))
ON CONFLICT (response, lane) DO UPDATE SET due_at_ms = 1
RETURNING lane;

-- name: tell_caller_again
INSERT INTO delivery (response, lane, url, status, ended_at_ms, due_at_ms)
SELECT job.id, lane, webhook, job.status, job.finished_at_ms, 1
FROM job JOIN call ON call.job = job.pk
WHERE job.id = :response AND job.is_background = 1 AND job.expires_at_ms > 0 AND webhook IS NOT NULL
ON CONFLICT (response, lane) DO UPDATE SET due_at_ms = 1
RETURNING lane;

-- name: give_up_old
DELETE FROM delivery
WHERE pk IN (
    SELECT delivery.pk
    FROM lane CROSS JOIN delivery INDEXED BY delivery_fresh ON delivery.lane = lane.name
    WHERE delivery.due_at_ms = 0 AND ended_at_ms <= :ended_before_ms
    UNION ALL
    SELECT delivery.pk
    FROM lane CROSS JOIN delivery INDEXED BY delivery_put_off_age ON delivery.lane = lane.name
    WHERE delivery.due_at_ms > 0 AND ended_at_ms <= :ended_before_ms
    LIMIT :limit)
RETURNING response, lane;

-- name: give_up_surplus
DELETE FROM delivery
WHERE pk IN (
    SELECT pk
    FROM (SELECT pk, ended_at_ms
          FROM (SELECT pk, ended_at_ms FROM delivery INDEXED BY delivery_fresh
                WHERE lane = :lane AND due_at_ms = 0 ORDER BY ended_at_ms, pk LIMIT :limit)
          UNION ALL
          SELECT pk, ended_at_ms
          FROM (SELECT pk, ended_at_ms FROM delivery INDEXED BY delivery_put_off_age
                WHERE lane = :lane AND due_at_ms > 0 ORDER BY ended_at_ms, pk LIMIT :limit))
    ORDER BY ended_at_ms, pk
    LIMIT :limit)
RETURNING response, lane;

-- name: waiting_by_lane
-- Two looks into the indexes for each lane, however much waits there.
SELECT name, waiting, down_since_ms,
       min(coalesce(fresh, put_off), coalesce(put_off, fresh)) AS oldest_ms
FROM (SELECT name, waiting, down_since_ms,
             (SELECT min(ended_at_ms) FROM delivery INDEXED BY delivery_fresh
              WHERE delivery.lane = lane.name AND delivery.due_at_ms = 0) AS fresh,
             (SELECT min(ended_at_ms) FROM delivery INDEXED BY delivery_put_off_age
              WHERE delivery.lane = lane.name AND delivery.due_at_ms > 0) AS put_off
      FROM lane)
ORDER BY name;

-- name: disabled_endpoints
SELECT name, disabled_at_ms FROM endpoint WHERE disabled_at_ms IS NOT NULL ORDER BY name;

-- name: failing_deliveries
-- The latest events whose attempts have failed.
SELECT * FROM delivery WHERE due_at_ms > 0 AND attempts > 0 ORDER BY ended_at_ms DESC LIMIT :limit;
