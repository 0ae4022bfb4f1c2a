use chrono::{DateTime, NaiveDateTime, Utc};
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::statement::Statement;
use crate::error::Result;

/// What is behind by the service's own tables.
#[derive(Debug)]
pub(crate) struct Standing {
    /// The database's clock (UTC).
    pub(crate) now: NaiveDateTime,
    /// When a run last succeeded, or when the first migration was applied (UTC).
    pub(crate) last_success: NaiveDateTime,
    /// Breaks that verifications have found which last got further within the time asked about.
    pub(crate) breaks: u64,
}

/// How maintenance has fared; breaks are those of verifications that last got further after `from` and up to `to`.
pub(crate) async fn get_standing(
    client: &impl GenericClient,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<Standing> {
    let row = Statement::new(include_str!("sql/get_standing.sql"))
        .bind("from", &from.naive_utc(), Type::TIMESTAMP)
        .bind("to", &to.naive_utc(), Type::TIMESTAMP)
        .query_one(client)
        .await?;
    Ok(Standing {
        now: row.try_get("now")?,
        last_success: row.try_get("last_success")?,
        breaks: row.try_get::<_, i64>("breaks")?.unsigned_abs(),
    })
}

/// When the oldest log created before `cutoff` was created, or none; those whose time cannot be are never due. The first entry of an index: known at once,
/// however many logs there are.
pub(crate) async fn find_oldest_due(
    client: &impl GenericClient,
    cutoff: NaiveDateTime,
) -> Result<Option<NaiveDateTime>> {
    let sql = r#"SELECT min("createdAt")::timestamp AS oldest FROM "EventLog" WHERE "createdAt" >= '0001-01-01' AND "createdAt" < $1"#;
    Ok(client.query_typed_one(sql, &[(&cutoff, Type::TIMESTAMP)]).await?.try_get("oldest")?)
}
