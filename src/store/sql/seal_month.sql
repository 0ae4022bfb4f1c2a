-- Seals all rows of a month that has no seals: somebody has dropped them.
-- :partition is the month's, :proof_columns are what is sealed of its rows; and what seal_batch has. One row: rows.
-- \set partition '"StreamArchive_2026_01"'
-- \set proof_columns 'id, "createdAt", ledger, "archivedAt", '''' AS content_hash, '''' AS entry_hash, '''' AS rest'
-- \set month '''2026-01'''
-- \set sequence 1
-- \set run NULL::uuid
-- \set previous '''''::bytea'
-- \set archived_after NULL::timestamp
-- \set archived_at '(SELECT max("archivedAt") FROM unsealed)'
-- \set columns '''{id}''::text[]'
-- \set kind '''adopted'''
-- \set removed ''''''
-- \set also ''
-- \set source unsealed
-- \set digest 'sha256(convert_to(content_hash || rest, ''UTF8''))'
-- \set is_wrong false
-- \set proof `cat seal_batch.sql`
WITH unsealed AS MATERIALIZED (
    SELECT :proof_columns FROM :partition
),
:proof
SELECT (SELECT count(*) FROM unsealed) AS rows
