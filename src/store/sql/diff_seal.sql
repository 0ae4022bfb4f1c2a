-- Which rows make an entry's digest wrong: leaves of the entry that no row has, and rows whose leaf the entry has not.
-- $1 month, $2 sequence, $3 the entry's leaves, $4 most of each. Columns: is_sealed, place (in the entry, from 1; of a row,
-- where it is among the rows), id (of a row). In order of is_sealed and place.
WITH entry AS MATERIALIZED (
    SELECT s.* FROM "ArchiveSeal" s WHERE s.month = $1 AND s.sequence = $2
),
present AS MATERIALIZED (
{present}
),
sealed AS (
    SELECT id, "createdAt", ledger::bigint AS ledger, substr(proof, 1, 32) AS digest FROM present
    UNION ALL
{removed}
),
found AS MATERIALIZED (
    SELECT row_number() OVER (ORDER BY "createdAt", id COLLATE "C") AS place, id, substr(digest, 1, 8) AS leaf FROM sealed
),
leaf AS MATERIALIZED (
    SELECT place, substr($3, place * 8 - 7, 8) AS leaf FROM generate_series(1, octet_length($3) / 8) place
)
(
    SELECT false AS is_sealed, place, id FROM found
    WHERE NOT EXISTS (SELECT FROM leaf WHERE leaf.leaf = found.leaf)
    ORDER BY place LIMIT $4
)
UNION ALL
(
    SELECT true, place, NULL FROM leaf
    WHERE NOT EXISTS (SELECT FROM found WHERE found.leaf = leaf.leaf)
    ORDER BY place LIMIT $4
)
