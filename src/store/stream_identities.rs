use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use crate::error::Result;

/// Remembers both ids of at most `limit` streams after `after` for which they are not known yet. Returns the last of
/// them, or `None` when all are known.
pub(crate) async fn remember_stream_ids(
    client: &impl GenericClient,
    after: &str,
    limit: u32,
) -> Result<Option<String>> {
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&after, Type::TEXT), (&i64::from(limit), Type::INT8)];
    let row = client.query_typed_one(include_str!("sql/remember_stream_ids.sql"), &parameters).await?;
    Ok(row.try_get("last_id")?)
}
