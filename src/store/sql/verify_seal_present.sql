    SELECT {proof_columns}, {has_excess} AS has_excess
    FROM {partition} a
    WHERE "archivedAt" > COALESCE((SELECT "archivedAfter" FROM entry), '-infinity')
      AND "archivedAt" <= (SELECT "archivedAt" FROM entry)
