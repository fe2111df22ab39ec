package postgres

// All SQL is here. Names are qualified, so that no search_path leads elsewhere; values are bound.

// sqlTimeline is the timeline that a primary writes to.
const sqlTimeline = `('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int`

// sqlObserve reads everything a plan needs, in one round trip, as the JSON form of model.Instance.
// pg_replication_slots is taken as a whole row, because its columns differ from version to version: wal_status came
// with 13, invalidation_reason and inactive_since with 17. That an old version is refused is for the plan to say, so
// that it has to be read, too. A walreceiver calls itself streaming before it has even connected, and again every few
// seconds where the primary refuses it: it is starting here until it has written WAL (written_lsn came with 13), or
// has lived for two seconds without, as where there is none to send. Beside it comes a standby's primary_conninfo,
// which not everybody may read: it has the name that the primary knows this host by.
const sqlObserve = `
SELECT pg_catalog.jsonb_build_object(
  'state', 'up',
  'version', pg_catalog.current_setting('server_version_num')::int,
  'system_id', system.system_identifier::text,
  'in_recovery', pg_catalog.pg_is_in_recovery(),
  'redo', checkpoint.redo_lsn,
  'redo_timeline', checkpoint.timeline_id,
  'timeline', CASE WHEN pg_catalog.pg_is_in_recovery()
    THEN coalesce((SELECT nullif(received_tli, 0) FROM pg_catalog.pg_stat_wal_receiver), checkpoint.timeline_id)
    ELSE ` + sqlTimeline + ` END,
  'current', CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                  ELSE pg_catalog.pg_current_wal_flush_lsn() END,
  'received', CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_receive_lsn() END,
  'no_rewind', CASE WHEN 'off' = ALL (ARRAY[pg_catalog.current_setting('wal_log_hints'), pg_catalog.current_setting('data_checksums')])
    THEN 'wal_log_hints is off, and there are no data checksums'
    WHEN pg_catalog.current_setting('full_page_writes') = 'off' THEN 'full_page_writes is off' END,
  'wal_segment_size', pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')),
  'max_replication_slots', pg_catalog.current_setting('max_replication_slots')::int,
  'primary_slot_name', pg_catalog.current_setting('primary_slot_name', true),
  'idle_replication_slot_timeout',
    extract(epoch FROM coalesce(pg_catalog.current_setting('idle_replication_slot_timeout', true), '0')::interval),
  'synchronized_standby_slots', pg_catalog.regexp_split_to_array(nullif(pg_catalog.lower(pg_catalog.regexp_replace(
    pg_catalog.current_setting('synchronized_standby_slots', true), '[\s"]', '', 'g')), ''), ','),
  'sync_replication_slots', coalesce(pg_catalog.current_setting('sync_replication_slots', true) = 'on', false),
  'slots', (
    SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'name', slot.slot_name, 'type', slot.slot_type, 'temporary', slot.temporary,
      'active', slot.active, 'active_pid', slot.active_pid,
      'xmin', slot.xmin::text::bigint, 'xmin_age', pg_catalog.age(slot.xmin), 'catalog_xmin', slot.catalog_xmin::text::bigint,
      'restart_lsn', slot.restart_lsn, 'wal_status', pg_catalog.to_jsonb(slot) ->> 'wal_status',
      'invalidation_reason', pg_catalog.to_jsonb(slot) ->> 'invalidation_reason',
      'failover', pg_catalog.to_jsonb(slot) -> 'failover', 'synced', pg_catalog.to_jsonb(slot) -> 'synced',
      'idle', extract(epoch FROM pg_catalog.now() - (pg_catalog.to_jsonb(slot) ->> 'inactive_since')::timestamptz)) ORDER BY slot.slot_name), '[]')
    FROM pg_catalog.pg_replication_slots AS slot),
  'wal_receiver', (
    SELECT pg_catalog.jsonb_build_object(
      'status', CASE WHEN r.status <> 'streaming' OR pg_catalog.to_jsonb(r) ->> 'written_lsn' IS NOT NULL
          OR EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(r.pid) AS a
            WHERE a.backend_start < pg_catalog.clock_timestamp() - '2 s'::interval)
        THEN r.status ELSE 'starting' END,
      'slot_name', coalesce(r.slot_name, ''), 'timeline', r.received_tli,
      'sender_host', r.sender_host, 'sender_port', r.sender_port)
    FROM pg_catalog.pg_stat_wal_receiver AS r),
  'wal_senders', (
    SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'application_name', r.application_name, 'pid', r.pid, 'state', r.state, 'address', pg_catalog.host(r.client_addr),
      'flushed', r.flush_lsn, 'replayed', r.replay_lsn, 'replay_lag', extract(epoch FROM r.replay_lag)) ORDER BY r.application_name, r.pid)
    FROM pg_catalog.pg_stat_replication AS r)),
  CASE WHEN pg_catalog.pg_has_role('pg_read_all_settings', 'USAGE') THEN pg_catalog.current_setting('primary_conninfo') END
FROM pg_catalog.pg_control_system() AS system, pg_catalog.pg_control_checkpoint() AS checkpoint`

// sqlWAL is what only a member of pg_monitor, or a superuser, may read: where the WAL is, and what limits it, the
// latter as
// the JSON form of model.Budget. pg_file_settings shows what the files say, whether it counts or not; the last line
// of a
// name is the one that would.
const sqlWAL = `
WITH written AS (
  SELECT setting, sourcefile, sourceline, seqno, sourcefile LIKE '%/postgresql.auto.conf' AS auto
  FROM pg_catalog.pg_file_settings WHERE name = 'max_slot_wal_keep_size'),
pinned AS (SELECT * FROM written WHERE NOT auto ORDER BY seqno DESC LIMIT 1),
settings AS MATERIALIZED (
  SELECT name, setting, source FROM pg_catalog.pg_settings WHERE name IN ('max_slot_wal_keep_size', 'max_wal_size', 'wal_keep_size'))
SELECT pg_catalog.current_setting('data_directory'),
  pg_catalog.jsonb_build_object(
    'max_slot_wal_keep_size', (SELECT setting::bigint FROM settings WHERE name = 'max_slot_wal_keep_size'),
    'max_wal_size', (SELECT setting::bigint FROM settings WHERE name = 'max_wal_size'),
    'wal_keep_size', (SELECT setting::bigint FROM settings WHERE name = 'wal_keep_size'),
    'command_line', (SELECT source = 'command line' FROM settings WHERE name = 'max_slot_wal_keep_size'),
    'auto_conf', EXISTS (SELECT FROM written WHERE auto),
    'pinned', (SELECT setting FROM pinned),
    'pinned_at', (SELECT pg_catalog.format('%s line %s', sourcefile, sourceline) FROM pinned))`

// sqlListWAL is how much WAL there is, which takes the longer the more there is; and the JSON form of model.Archive,
// NULL
// where no archiver runs. A segment waits while its .ready is there.
const sqlListWAL = `
SELECT (SELECT coalesce(pg_catalog.sum(size), 0)::bigint FROM pg_catalog.pg_ls_waldir()),
  CASE WHEN pg_catalog.current_setting('archive_mode') = 'always'
    OR pg_catalog.current_setting('archive_mode') = 'on' AND NOT pg_catalog.pg_is_in_recovery()
  THEN (SELECT pg_catalog.jsonb_build_object(
    'waiting', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_ls_archive_statusdir() WHERE name ~ '^[0-9A-F]{24}\.ready$')
      * pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')),
    'failing', coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false),
    'failed_wal', coalesce(last_failed_wal, ''),
    'since', greatest(0, extract(epoch FROM pg_catalog.now() - coalesce(last_archived_time, stats_reset))))
    FROM pg_catalog.pg_stat_archiver) END`

// sqlListTimeout has the server give up a listing before we do; sqlUsualTimeout is what the session began with.
const (
	sqlListTimeout  = `SET statement_timeout = '2s'`
	sqlUsualTimeout = `RESET statement_timeout`
)

// sqlGuard is what every step asserts: the system, the role and the timeline it was planned on ($1 to $3).
const sqlGuard = `
  (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) = $1
  AND pg_catalog.pg_is_in_recovery() = $2
  AND (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()) = $3`

// sqlIdleSlot finds the slot $4 if it is ours to change, not in use, and still where it was seen ($5).
const sqlIdleSlot = `
  SELECT slot_name FROM pg_catalog.pg_replication_slots
  WHERE slot_name = $4 AND slot_type = 'physical' AND NOT temporary AND NOT active
    AND restart_lsn IS NOT DISTINCT FROM $5::pg_catalog.pg_lsn AND` + sqlGuard

// sqlRedo is the redo of the last checkpoint or restartpoint that is complete.
const sqlRedo = `(SELECT redo_lsn::text FROM pg_catalog.pg_control_checkpoint())`

// A function in the select list is called for the rows that pass WHERE only.
const (
	sqlCreateSlot = `SELECT (pg_catalog.pg_create_physical_replication_slot($4, true)).lsn::text, ` + sqlRedo + ` WHERE` + sqlGuard

	// The redo is compared within the statement, too: the slot must not pass it.
	sqlAdvanceSlot = `
WITH slot AS MATERIALIZED (` + sqlIdleSlot + `
  AND restart_lsn <= $6::pg_catalog.pg_lsn
  AND $6::pg_catalog.pg_lsn <= (SELECT redo_lsn FROM pg_catalog.pg_control_checkpoint()))
SELECT (pg_catalog.pg_replication_slot_advance(slot_name, $6::pg_catalog.pg_lsn)).end_lsn::text FROM slot`

	// To the position it has: a use that moves nothing.
	sqlTouchSlot = `
WITH slot AS MATERIALIZED (` + sqlIdleSlot + `)
SELECT (pg_catalog.pg_replication_slot_advance(slot_name, $5::pg_catalog.pg_lsn)).end_lsn::text FROM slot`

	// That the slot is as planned on, before its xmin is released.
	sqlSeeSlot = `WITH slot AS MATERIALIZED (` + sqlIdleSlot + `)
SELECT slot_name::text FROM slot`

	sqlDropSlot = `WITH slot AS MATERIALIZED (` + sqlIdleSlot + `)
SELECT pg_catalog.pg_drop_replication_slot(slot_name)::text FROM slot`

	// A row of "dropped" exists only once the drop is done, and the slot is made for that row. Slots are not transactional:
	// if the create then fails, the slot is gone, and the next plan makes it.
	sqlResetSlot = `WITH slot AS MATERIALIZED (` + sqlIdleSlot + `
  AND (restart_lsn IS NULL OR wal_status = 'lost')),
dropped AS MATERIALIZED (SELECT slot_name, pg_catalog.pg_drop_replication_slot(slot_name) FROM slot)
SELECT (pg_catalog.pg_create_physical_replication_slot(slot_name, true)).lsn::text, ` + sqlRedo + ` FROM dropped`

	// A slot that holds WAL is made anew only where that takes it further back. PostgreSQL reserves from the redo of a
	// restartpoint as soon as that has begun, while the control file shows the one before. So a trial slot is made
	// first: where it stands further back the slot is dropped and becomes a copy of it. It is the session's own, and
	// goes in any case.
	sqlResetBack = `WITH slot AS MATERIALIZED (` + sqlIdleSlot + `
  AND wal_status <> 'lost'),
trial AS MATERIALIZED (SELECT slot_name, '_pgrex_trial_' || pg_catalog.pg_backend_pid() AS name,
  (pg_catalog.pg_create_physical_replication_slot('_pgrex_trial_' || pg_catalog.pg_backend_pid(), true, true)).lsn FROM slot),
dropped AS MATERIALIZED (SELECT slot_name, name, pg_catalog.pg_drop_replication_slot(slot_name) FROM trial WHERE lsn < $5::pg_catalog.pg_lsn),
made AS MATERIALIZED (SELECT (pg_catalog.pg_copy_physical_replication_slot(name, slot_name, false)).slot_name FROM dropped)
SELECT trial.lsn::text, ` + sqlRedo + `, made.slot_name IS NOT NULL, pg_catalog.pg_drop_replication_slot(trial.name)
FROM trial LEFT JOIN made ON true`

	// The setting $4 as it counts, whether the command line rules it, and what postgresql.auto.conf says, to put it back.
	sqlCheckSetting = `
SELECT setting, source = 'command line',
  (SELECT file.setting FROM pg_catalog.pg_file_settings AS file
   WHERE file.name = $4 AND sourcefile LIKE '%/postgresql.auto.conf' ORDER BY seqno DESC LIMIT 1)
FROM pg_catalog.pg_settings WHERE name = $4 AND` + sqlGuard

	// Slots that hold more than $4 bytes, counted as PostgreSQL does (KeepLogSeg): whole segments, up to the end of the WAL here.
	sqlHoldsMore = `
  FROM (SELECT slot_name, pg_catalog.pg_wal_lsn_diff(CASE WHEN pg_catalog.pg_is_in_recovery()
      THEN greatest(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())
      ELSE pg_catalog.pg_current_wal_flush_lsn() END, restart_lsn)
      + pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')) AS bytes
    FROM pg_catalog.pg_replication_slots WHERE wal_status <> 'lost') AS held
  WHERE bytes > $4::bigint`

	sqlMostHeld = `SELECT slot_name::text, bytes::bigint` + sqlHoldsMore + ` AND` + sqlGuard + `
ORDER BY bytes DESC, slot_name LIMIT 1`

	// Where $4 is NULL nothing holds more.
	sqlReload     = `SELECT pg_catalog.pg_reload_conf()::text WHERE NOT EXISTS (SELECT` + sqlHoldsMore + `) AND` + sqlGuard
	sqlAlterSet   = `ALTER SYSTEM SET ` // and a name, and a quoted literal: a utility statement takes no parameters
	sqlAlterReset = `ALTER SYSTEM RESET `
	sqlSetting    = `
SELECT setting, coalesce(sourcefile LIKE '%/postgresql.auto.conf', false) FROM pg_catalog.pg_settings WHERE name = $1`

	// Why a reload did not take: the first fault in the configuration files. Its text names no value.
	sqlFileFault = `
SELECT pg_catalog.format('%s line %s: %s', sourcefile, sourceline, error) FROM pg_catalog.pg_file_settings
WHERE error IS NOT NULL ORDER BY seqno LIMIT 1`

	// Who streams from here, and how much WAL each has not replayed: all of it where that is not known yet.
	sqlStandbys = `
SELECT application_name, state, sync_state, coalesce(pg_catalog.host(client_addr), ''),
  pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), coalesce(replay_lsn, '0/0'))::bigint
FROM pg_catalog.pg_stat_replication ORDER BY application_name, pid`

	sqlNoTimeout  = `SET statement_timeout = 0`
	sqlCheckpoint = `CHECKPOINT`

	// A commit that changes no data: where it ends well, the server takes writes.
	sqlCommit = `SELECT pg_catalog.pg_logical_emit_message(true, 'pgrex', '')::text`

	sqlSettings = `SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY($1)`

	// Whether this user may list and read files, as pg_rewind does.
	sqlMayReadFiles = `
SELECT pg_catalog.bool_and(pg_catalog.has_function_privilege('pg_catalog.' || f, 'EXECUTE'))
FROM pg_catalog.unnest('{"pg_ls_dir(text,boolean,boolean)","pg_stat_file(text,boolean)","pg_read_binary_file(text,bigint,bigint,boolean)"}'::text[]) AS f`

	sqlFilesTimeout = `SET statement_timeout = '50s'`

	// Reads a byte of each file that is no relation's: the server needs to read relations anyway. An empty file is left
	// out, because it may be a pipe, and reading a pipe would wait. So are WAL segments, of which there may be many
	// thousands.
	sqlReadFiles = `
WITH RECURSIVE entry AS (
  SELECT '.' AS path, true AS isdir, 0::bigint AS size
  UNION ALL
  SELECT entry.path || '/' || name, stat.isdir, stat.size
  FROM entry, pg_catalog.pg_ls_dir(entry.path, true, false) AS name,
    pg_catalog.pg_stat_file(entry.path || '/' || name, true) AS stat
  WHERE entry.isdir AND entry.path NOT IN ('./base', './pg_tblspc', './pg_stat_tmp', './pg_replslot')
    AND NOT (entry.path = './pg_wal' AND name ~ '^[0-9A-F]{24}$')
)
SELECT pg_catalog.count(pg_catalog.pg_read_binary_file(path, 0, 1, true))::text FROM entry
WHERE NOT isdir AND size > 0 AND path <> './postmaster.pid'`

	// The first of some names that is there; '' if none is. %s are quoted literals.
	sqlFirstFile = `SELECT coalesce((SELECT name FROM pg_catalog.unnest(ARRAY[%s]::text[]) WITH ORDINALITY AS asked(name, place)
WHERE (pg_catalog.pg_stat_file(name, true)).size IS NOT NULL ORDER BY place LIMIT 1), '')`

	// How much pg_rewind copies whole, and how much is in the relations of each database, by its folder. It copies whole
	// what is not the main fork of a relation, and leaves out some folders (filemap.c).
	sqlFiles = `
WITH RECURSIVE entry AS (
  SELECT '.' AS path, true AS isdir, 0::bigint AS size
  UNION ALL
  SELECT entry.path || '/' || name, stat.isdir, stat.size
  FROM entry, pg_catalog.pg_ls_dir(entry.path, true, false) AS name,
    pg_catalog.pg_stat_file(entry.path || '/' || name, true) AS stat
  WHERE entry.isdir AND entry.path NOT IN ('./pg_stat_tmp', './pg_replslot', './pg_dynshmem', './pg_notify', './pg_serial',
    './pg_snapshots', './pg_subtrans')
), file AS (
  SELECT size, (pg_catalog.regexp_match(path,
    '^\./(global|base/[0-9]+|pg_tblspc/[0-9]+/PG_[^/]+/[0-9]+)/[0-9]+([.][0-9]+)?$'))[1] AS database
  FROM entry WHERE NOT isdir
)
SELECT pg_catalog.json_build_object(
  'whole', (SELECT pg_catalog.sum(size) FROM file WHERE database IS NULL),
  'databases', (SELECT pg_catalog.json_object_agg(database, bytes)
    FROM (SELECT database, pg_catalog.sum(size) AS bytes FROM file WHERE database IS NOT NULL GROUP BY database) AS sums))`

	sqlInRecovery = `SELECT pg_catalog.pg_is_in_recovery()`

	sqlReceived = `SELECT coalesce(pg_catalog.pg_last_wal_receive_lsn(), '0/0')::text`

	// The tablespaces outside the data folder. A relative location is inside it.
	sqlTablespaces = `
SELECT pg_catalog.json_build_object('tablespaces', pg_catalog.json_agg(
  pg_catalog.json_build_object('oid', oid::bigint, 'name', spcname, 'location', location) ORDER BY spcname))
FROM (SELECT oid, spcname, pg_catalog.pg_tablespace_location(oid) AS location FROM pg_catalog.pg_tablespace) AS spaces
WHERE location LIKE '/%'`

	// The sizes of the tablespaces outside the data folder, and of all databases. A size that the user may not see counts
	// as 0.
	sqlSizes = `
SELECT pg_catalog.json_build_object(
  'bytes', (SELECT coalesce(pg_catalog.sum(pg_catalog.pg_database_size(oid)), 0) FROM pg_catalog.pg_database
    WHERE pg_catalog.has_database_privilege(oid, 'CONNECT') OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')),
  'tablespaces', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
    'oid', oid::bigint, 'bytes', pg_catalog.pg_tablespace_size(oid))) FROM pg_catalog.pg_tablespace
    WHERE pg_catalog.pg_tablespace_location(oid) LIKE '/%'
      AND (pg_catalog.has_tablespace_privilege(oid, 'CREATE') OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE'))))`

	// Whether the control file shows the timeline that is written to.
	sqlTimelineShown = `
SELECT (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()) = ` + sqlTimeline

	// The answer of READ_REPLICATION_SLOT; %s is a quoted literal, because the replication protocol binds no values.
	sqlUpstreamSlot = `SELECT s.slot_type, CASE s.slot_type WHEN 'physical' THEN s.restart_lsn END
FROM (SELECT %s::name AS name) AS asked LEFT JOIN pg_catalog.pg_replication_slots AS s ON s.slot_name = asked.name`
)
