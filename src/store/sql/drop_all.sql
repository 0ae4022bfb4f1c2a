-- Drops all that the migrations made, and nothing else: not what depends on it, which makes this fail.
DROP VIEW "StreamHistory";
DROP FUNCTION
    stream_history(),
    stream_history_refresh(),
    stream_archive_create_partition(timestamp),
    stream_archive_index_partition(timestamp),
    stream_archive_analyze_partition(timestamp),
    stream_archive_partition_name(timestamp),
    stream_snapshot_list(text, text, text, bigint),
    stream_archive_list,
    stream_event_list,
    stream_event_list_oldest_first,
    stream_event_wire_forms(regclass),
    stream_identity_of(text, text, timestamp),
    stream_identity_turn(text[], text, timestamp, timestamp),
    stream_identity_rows(text[], text[]),
    stream_identity_observe(text[]),
    stream_identity_look_up;
DROP TABLE
    "StreamSnapshot",
    "StreamArchive",
    "StreamIdentity",
    "MaintenanceRun",
    "RunMonth",
    "MaintenancePause",
    "MaintenanceFinding",
    "ArchiveMonth",
    "ArchiveSeal",
    "ArchiveRemoval",
    "ArchiveVerification",
    "VerificationTask",
    "RestoredLog",
    "FormerTable",
    "LegalHold",
    snapshot_service_migrations;
DO $$
BEGIN
    -- One that somebody else made for us stays.
    IF pg_has_role((SELECT nspowner FROM pg_namespace WHERE nspname = current_schema), 'USAGE') THEN
        EXECUTE format('DROP SCHEMA %I', current_schema);
    END IF;
END
$$
