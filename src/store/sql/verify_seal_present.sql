-- Part of verify_seal.sql and diff_seal.sql: the rows of the month's partition that the seal seals.
-- Parts: proof_columns (what is compared), has_excess (whether a row has values in columns that the seal does not cover), partition.
    SELECT :proof_columns, :has_excess AS has_excess
    FROM :partition a
    WHERE "archivedAt" > COALESCE((SELECT "archivedAfter" FROM seal), '-infinity')
      AND "archivedAt" <= (SELECT "archivedAt" FROM seal)
