use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::archive_columns::MirroredColumns;
use super::partitions::partition_name;
use crate::error::Result;
use crate::model::Month;

/// What is due: fixed when a run starts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    /// Rows created before this instant (UTC) are due.
    pub(crate) cutoff: NaiveDateTime,
    /// Whether `EventLog` has hashes, so that its newest row must stay (domain rule 7).
    pub(crate) has_hashes: bool,
}

/// A place in `EventLog`'s order by (`createdAt`, `id`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) created_at: NaiveDateTime,
    pub(crate) id: String,
}

impl Position {
    /// Before all rows: the year 1 is older than anything that a host's clock has ever said.
    pub(crate) fn first() -> Self {
        Self::before(NaiveDate::from_ymd_opt(1, 1, 1).unwrap_or_default().and_time(NaiveTime::MIN))
    }

    /// Before all rows created at or after `created_at`: no id is empty.
    pub(crate) fn before(created_at: NaiveDateTime) -> Self {
        Self { created_at, id: String::new() }
    }
}

/// Keeps the columns of `EventLog` as they are until the transaction ends; rows can still be written.
pub(crate) async fn lock_columns(client: &impl GenericClient) -> Result<()> {
    client.batch_execute(r#"LOCK TABLE "EventLog" IN ROW EXCLUSIVE MODE"#).await?;
    Ok(())
}

/// Whether the newest row of `EventLog` is due and any row has a hash. Looks at the rows only in the first case: as long
/// as the newest row is not due, no hash matters.
pub(crate) async fn has_due_hashes(
    client: &impl GenericClient,
    columns: &MirroredColumns,
    cutoff: NaiveDateTime,
) -> Result<bool> {
    if !columns.have_hashes() {
        return Ok(false);
    }
    let row = client
        .query_typed_one(
            r#"SELECT CASE WHEN (SELECT max("createdAt") FROM "EventLog") < $1
                           THEN EXISTS (SELECT FROM "EventLog" WHERE entry_hash IS NOT NULL) ELSE false END AS has_hashes"#,
            &[(&cutoff, Type::TIMESTAMP)],
        )
        .await?;
    Ok(row.try_get("has_hashes")?)
}

/// What [`find_next_due`] found.
#[derive(Debug)]
pub(crate) struct NextDue {
    /// When the oldest due row was created.
    pub(crate) created_at: Option<NaiveDateTime>,
    /// The due row that stays as the chain's head.
    pub(crate) chain_head: Option<String>,
}

/// The oldest due row after `after`, and the one that is held back.
pub(crate) async fn find_next_due(
    client: &impl GenericClient,
    columns: &MirroredColumns,
    due: Due,
    after: &Position,
) -> Result<NextDue> {
    let statement = include_str!("sql/find_next_due.sql").replace("{chain_head}", chain_head(columns));
    let row = client
        .query_typed_one(
            &statement,
            &[
                (&due.cutoff, Type::TIMESTAMP),
                (&due.has_hashes, Type::BOOL),
                (&after.created_at, Type::TIMESTAMP),
                (&after.id, Type::TEXT),
            ],
        )
        .await?;
    Ok(NextDue { created_at: row.try_get("created_at")?, chain_head: row.try_get("head_id")? })
}

/// Which rows the next batch may take.
#[derive(Debug)]
pub(crate) struct BatchRequest<'a> {
    pub(crate) due: Due,
    pub(crate) month: Month,
    pub(crate) after: &'a Position,
    pub(crate) limit: u32,
    pub(crate) now: NaiveDateTime,
}

/// What [`move_due_batch`] did.
#[derive(Debug)]
pub(crate) struct MovedBatch {
    /// Rows looked at and locked; fewer than the limit when the month has no more.
    pub(crate) seen: u64,
    /// Rows that are now in the archive.
    pub(crate) moved: u64,
    /// Rows that the archive had already, still in `EventLog` and locked.
    pub(crate) twins: Vec<String>,
    /// Rows left out because another session has locked or just changed them.
    pub(crate) in_use: u64,
    /// The last row looked at.
    pub(crate) last: Option<Position>,
}

/// Moves the next due rows of a month to its partition, which exists. A row's twin is looked for in that partition and
/// in those that were adopted: everywhere else, moving was atomic and no copy was left behind.
pub(crate) async fn move_due_batch(
    client: &impl GenericClient,
    columns: &MirroredColumns,
    adopted: &[String],
    request: &BatchRequest<'_>,
) -> Result<MovedBatch> {
    let partition = partition_name(request.month);
    let others = adopted.iter().filter(|name| **name != partition);
    let twins = others
        .fold(format!("SELECT id FROM {partition}"), |sql, name| format!("{sql} UNION ALL SELECT id FROM {name}"));
    let statement = include_str!("sql/move_due_batch.sql")
        .replace("{chain_head}", chain_head(columns))
        .replace("{twins}", &twins)
        .replace("{partition}", &partition)
        .replace("{columns}", &columns.list(""))
        .replace("{returned}", &columns.list("e."));
    let end = request.month.end().min(request.due.cutoff);
    let row = client
        .query_typed_one(
            &statement,
            &[
                (&request.due.cutoff, Type::TIMESTAMP),
                (&request.due.has_hashes, Type::BOOL),
                (&request.month.start(), Type::TIMESTAMP),
                (&end, Type::TIMESTAMP),
                (&request.after.created_at, Type::TIMESTAMP),
                (&request.after.id, Type::TEXT),
                (&i64::from(request.limit), Type::INT8),
                (&request.now, Type::TIMESTAMP),
            ],
        )
        .await?;
    let last = match row.try_get::<_, Option<NaiveDateTime>>("last_created_at")? {
        Some(created_at) => Some(Position { created_at, id: row.try_get("last_id")? }),
        None => None,
    };
    Ok(MovedBatch {
        seen: row.try_get::<_, i64>("seen")?.unsigned_abs(),
        moved: row.try_get::<_, i64>("moved")?.unsigned_abs(),
        twins: row.try_get("twin_ids")?,
        in_use: row.try_get::<_, i64>("in_use")?.unsigned_abs(),
        last,
    })
}

/// What [`settle_twins`] did.
#[derive(Debug, Default)]
pub(crate) struct SettledTwins {
    /// Rows dropped from `EventLog`, their archived copies being whole now.
    pub(crate) dropped: u64,
    /// Rows whose copies differ; they stay.
    pub(crate) conflicts: Vec<String>,
}

/// Settles rows that the archive has already, `ids`, locked by this transaction.
pub(crate) async fn settle_twins(
    client: &impl GenericClient,
    columns: &MirroredColumns,
    ids: &[String],
) -> Result<SettledTwins> {
    let statement = include_str!("sql/settle_twins.sql")
        .replace("{agree}", &columns.agree())
        .replace("{fill}", &columns.fill())
        .replace("{gap}", &columns.gap());
    let row = client.query_typed_one(&statement, &[(&ids, Type::TEXT_ARRAY)]).await?;
    Ok(SettledTwins {
        dropped: row.try_get::<_, i64>("dropped")?.unsigned_abs(),
        conflicts: row.try_get("conflict_ids")?,
    })
}

/// The look-up of the chain's head; a host without hashes has none.
fn chain_head(columns: &MirroredColumns) -> &'static str {
    // Both parameters are named so that their types are known.
    const NONE: &str = "SELECT NULL::text AS id WHERE $1 IS NULL AND $2";
    if columns.have_hashes() { include_str!("sql/chain_head.sql") } else { NONE }
}
