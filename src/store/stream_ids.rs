use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use crate::error::Result;
use crate::model::{StreamId, StreamIds};

/// Both ids of a stream that is named by either (domain rule 8); an unknown id stands for both.
pub(crate) async fn get_stream_ids(client: &impl GenericClient, stream: &StreamId) -> Result<StreamIds> {
    let sql = concat!(include_str!("sql/stream_ids.sql"), "SELECT id, contract_id FROM ids");
    let row = client.query_typed_one(sql, &[(&stream.as_str(), Type::TEXT)]).await?;
    Ok(StreamIds { id: row.try_get("id")?, contract_id: row.try_get("contract_id")? })
}
