-- Adds a seal to a month's chain.
-- What is set are its columns; times of rows are texts. :unlinked are the parents that are not among the batch's own rows: where there are
-- none, there is nothing to look for.
-- \set month '''2026-01'''
-- \set sequence 1
-- \set kind '''archived'''
-- \set run 'gen_random_uuid()'
-- \set rows 1
-- \set first_created_at '''2026-01-10 00:00:00'''
-- \set first_id '''e1'''
-- \set last_created_at '''2026-01-10 00:00:00'''
-- \set last_id '''e1'''
-- \set archived_after NULL
-- \set archived_at '''2026-05-01'''
-- \set min_ledger 1
-- \set max_ledger 1
-- \set columns '''{id}'''
-- \set digest ''''''
-- \set leaves ''''''
-- \set unlinked '''{}''::text[]'
INSERT INTO "ArchiveSeal" (
    month, sequence, kind, "runId", rows, "firstCreatedAt", "firstId", "lastCreatedAt", "lastId", "archivedAfter", "archivedAt",
    "minLedger", "maxLedger", columns, digest, leaves, unlinked, "linksChecked"
)
VALUES (
    :month, :sequence, :kind, :run, :rows, CAST(:first_created_at AS timestamp), :first_id, CAST(:last_created_at AS timestamp), :last_id,
    :archived_after, :archived_at, :min_ledger, :max_ledger, :columns, :digest, :leaves, :unlinked, :unlinked = '{}'
)
