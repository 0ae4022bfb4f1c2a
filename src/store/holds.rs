use chrono::NaiveDateTime;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use super::statement::Statement;
use super::stream_identity::{FoundStream, in_time, texts};
use crate::error::Result;
use crate::model::{ContractId, LegalHold};

/// SQL for the contract-level ids of the streams under legal hold.
pub(super) const HELD_STREAMS: &str = include_str!("sql/held_streams.sql");

/// What may not be moved right now.
#[derive(Debug)]
pub(crate) struct Held {
    /// Contract-level ids of the streams under legal hold.
    pub(crate) streams: Vec<String>,
    /// Whether rows were restored and not released.
    pub(crate) has_restored_rows: bool,
}

/// What is held, and stays so until the transaction ends: a hold that is placed meanwhile waits for it.
pub(crate) async fn lock_holds(client: &impl GenericClient) -> Result<Held> {
    client.batch_execute(r#"LOCK TABLE "LegalHold", "RestoredLog" IN SHARE MODE"#).await?;
    let sql = r#"SELECT ARRAY(:held_streams) AS streams, EXISTS (SELECT FROM "RestoredLog") AS has_restored_rows"#;
    let row = Statement::new(sql).fragment("held_streams", HELD_STREAMS).query_one(client).await?;
    Ok(Held { streams: row.try_get("streams")?, has_restored_rows: row.try_get("has_restored_rows")? })
}

/// Contract-level ids of the streams under legal hold.
pub(crate) async fn list_held_streams(client: &impl GenericClient) -> Result<Vec<String>> {
    let statement = Statement::new("SELECT ARRAY(:held_streams) AS streams").fragment("held_streams", HELD_STREAMS);
    Ok(statement.query_one(client).await?.try_get("streams")?)
}

/// The streams under legal hold, as above, for who writes `RestoredLog`: in the same order, so that nobody waits in a circle.
pub(crate) async fn lock_legal_holds(client: &impl GenericClient) -> Result<Vec<String>> {
    let lock = r#"LOCK TABLE "LegalHold" IN SHARE MODE; LOCK TABLE "RestoredLog" IN ROW EXCLUSIVE MODE"#;
    client.batch_execute(lock).await?;
    list_held_streams(client).await
}

/// Places a hold on a stream. Returns whether there was none yet for this reason.
pub(crate) async fn insert_hold(
    client: &impl GenericClient,
    stream: &FoundStream,
    reason: &str,
    by: &str,
) -> Result<bool> {
    let rows = client
        .execute_typed(
            r#"INSERT INTO "LegalHold" ("streamId", reason, "heldBy")
               SELECT $2, $3, $4
               WHERE NOT EXISTS (
                   SELECT FROM "LegalHold" WHERE "streamId" = ANY ($1) AND reason = $3 AND "releasedAt" IS NULL
               )
               ON CONFLICT ("streamId", reason) WHERE "releasedAt" IS NULL DO NOTHING"#,
            &[
                (&stream.names.0, Type::TEXT_ARRAY),
                (&stream.contract_id, Type::TEXT),
                (&reason, Type::TEXT),
                (&by, Type::TEXT),
            ],
        )
        .await?;
    Ok(rows > 0)
}

/// The holds in force on a stream, oldest first.
pub(crate) async fn list_holds_of(client: &impl GenericClient, stream: &FoundStream) -> Result<Vec<LegalHold>> {
    let sql = format!(r#"{HOLDS} AND "streamId" = ANY ($1) ORDER BY "heldAt", id"#);
    let rows = client.query_typed(&sql, &[(&stream.names.0, Type::TEXT_ARRAY)]).await?;
    rows.iter().map(parse).collect()
}

/// All holds in force, oldest first.
pub(crate) async fn list_holds(client: &impl GenericClient) -> Result<Vec<LegalHold>> {
    let rows = client.query_typed(&format!(r#"{HOLDS} ORDER BY "heldAt", id"#), &[]).await?;
    rows.iter().map(parse).collect()
}

const HOLDS: &str = r#"SELECT id, "streamId", reason, "heldBy", "heldAt" FROM "LegalHold" WHERE "releasedAt" IS NULL"#;

/// Ends a hold. Its row stays. Returns whether it was in force.
pub(crate) async fn release_hold(client: &impl GenericClient, hold: Uuid, reason: &str, by: &str) -> Result<bool> {
    let rows = client
        .execute_typed(
            r#"UPDATE "LegalHold"
               SET "releaseReason" = $2, "releasedBy" = $3, "releasedAt" = clock_timestamp() AT TIME ZONE 'UTC'
               WHERE id = $1 AND "releasedAt" IS NULL"#,
            &[(&hold, Type::UUID), (&reason, Type::TEXT), (&by, Type::TEXT)],
        )
        .await?;
    Ok(rows > 0)
}

fn parse(row: &Row) -> Result<LegalHold> {
    Ok(LegalHold {
        id: row.try_get("id")?,
        stream_id: row.try_get("streamId")?,
        reason: row.try_get("reason")?,
        held_by: row.try_get("heldBy")?,
        held_at: row.try_get::<_, NaiveDateTime>("heldAt")?.and_utc(),
        warning: None,
    })
}

/// How many rows were restored and not released.
pub(crate) async fn count_restored(client: &impl GenericClient) -> Result<u64> {
    let row = client.query_typed_one(r#"SELECT count(*) AS rows FROM "RestoredLog""#, &[]).await?;
    Ok(row.try_get::<_, i64>("rows")?.unsigned_abs())
}

/// Releases up to `limit` restored rows, of a stream by its contract ids and of a restore, each `None` for all. Returns how many.
pub(crate) async fn delete_restored(
    client: &impl GenericClient,
    contract_ids: Option<&[ContractId]>,
    run: Option<Uuid>,
    limit: u32,
) -> Result<u64> {
    let sql = r#"DELETE FROM "RestoredLog" WHERE id = ANY (ARRAY(
            SELECT id FROM "RestoredLog" r WHERE :of_stream AND (:run IS NULL OR "runId" = :run) LIMIT :limit
        ))"#;
    let rows = Statement::new(sql)
        .fragment("of_stream", contract_ids.map_or("true".into(), is_restored_of))
        .bind("contract_ids", &contract_ids.map(texts), Type::TEXT_ARRAY)
        .bind("run", &run, Type::UUID)
        .bind("limit", &i64::from(limit), Type::INT8)
        .execute(client)
        .await?;
    Ok(rows)
}

/// SQL that is true of the restored row `r` that has one of these contract ids, the elements of `:contract_ids`. When the log was
/// created, which matters where an id has named two streams, `EventLog` knows.
fn is_restored_of(contract_ids: &[ContractId]) -> String {
    let conditions = contract_ids.iter().enumerate().map(|(index, contract_id)| {
        let has_id = format!(r#"r."streamId" = :contract_ids[{}]"#, index + 1);
        match in_time("e", contract_id) {
            in_time if in_time.is_empty() => has_id,
            in_time => format!(r#"{has_id} AND EXISTS (SELECT FROM "EventLog" e WHERE e.id = r.id{in_time})"#),
        }
    });
    let conditions: Vec<_> = conditions.collect();
    if conditions.is_empty() { "false".into() } else { format!("({})", conditions.join(" OR ")) }
}
