-- Notes in the seals that a column has another name now. Of a seal that has both names the former one was empty.
-- :former and :present are the names.
-- \set former '''note'''
-- \set present '''memo'''
UPDATE "ArchiveSeal" s
SET "presentColumns" = array_replace(named.columns, :former, CASE WHEN :present = ANY (named.columns) THEN NULL ELSE :present END)
FROM (SELECT month, sequence, COALESCE("presentColumns", columns) AS columns FROM "ArchiveSeal") named
WHERE named.month = s.month AND named.sequence = s.sequence AND :former = ANY (named.columns)
