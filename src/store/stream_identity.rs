use chrono::{DateTime, NaiveDateTime, Utc};
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

use super::statement::Statement;
use crate::error::{Error, Result};
use crate::model::{ContractId, StreamId, StreamNames};

/// A stream as it is and was called.
#[derive(Debug)]
pub(crate) struct FoundStream {
    /// The contract id that it has, or had last.
    pub(crate) contract_id: String,
    pub(crate) names: StreamNames,
    /// All contract ids of its logs.
    pub(crate) contract_ids: Vec<ContractId>,
}

impl FoundStream {
    /// The contract ids, where there is more to say than that the stream has the last one.
    pub(crate) fn special_contract_ids(&self) -> Option<Vec<ContractId>> {
        let plain = [ContractId::always(self.contract_id.clone())];
        (self.contract_ids != plain).then(|| self.contract_ids.clone())
    }
}

/// The stream that is called `stream`; one that is not known has that as both ids.
pub(crate) async fn get_stream(client: &impl GenericClient, stream: &StreamId) -> Result<FoundStream> {
    let statement = Statement::new(include_str!("sql/get_stream.sql"));
    let rows = statement.bind("stream", &stream.as_str(), Type::TEXT).query(client).await?;
    let first = rows.first().ok_or(Error::NotFound { what: "Stream" })?;
    let time = |row: &Row, name: &str| -> Result<Option<DateTime<Utc>>> {
        Ok(row.try_get::<_, Option<NaiveDateTime>>(name)?.map(|time| time.and_utc()))
    };
    let mut contract_ids = Vec::with_capacity(rows.len());
    for row in &rows {
        // One that has no contract id yet is a row without.
        if let Some(id) = row.try_get("owned_id")? {
            contract_ids.push(ContractId { id, from: time(row, "since")?, until: time(row, "until")? });
        }
    }
    Ok(FoundStream { contract_id: first.try_get("contract_id")?, names: parse_names(first)?, contract_ids })
}

/// A stream's names, which each row of a list has for its cursor.
pub(super) fn parse_names(row: &Row) -> Result<StreamNames> {
    Ok(StreamNames(row.try_get("names")?))
}

/// Whether a stream, a log, hot or archived, a snapshot or a record has this id.
pub(crate) async fn is_known(client: &impl GenericClient, stream: &StreamId) -> Result<bool> {
    let statement = Statement::new(include_str!("sql/is_known.sql"));
    Ok(statement.bind("id", &stream.as_str(), Type::TEXT).query_one(client).await?.try_get("is_known")?)
}

/// Records the ids that these streams, by their `Stream.id`, have now.
pub(crate) async fn observe(client: &impl GenericClient, streams: &[String]) -> Result<()> {
    if streams.is_empty() {
        return Ok(());
    }
    client.query_typed("SELECT stream_identity_observe($1)", &[(&streams, Type::TEXT_ARRAY)]).await?;
    Ok(())
}

/// Records the ids that the stream called `stream` has now, and others that have taken one of its ids over.
pub(crate) async fn observe_stream(client: &impl GenericClient, stream: &StreamId) -> Result<()> {
    let statement = Statement::new(include_str!("sql/list_unrecorded_of_stream.sql"));
    let rows = statement.bind("stream", &stream.as_str(), Type::TEXT).query(client).await?;
    let streams: Vec<String> = rows.iter().map(|row| Ok(row.try_get("id")?)).collect::<Result<_>>()?;
    observe(client, &streams).await
}

/// Records the ids of all streams that are not recorded as they are.
pub(crate) async fn observe_all(client: &impl GenericClient) -> Result<()> {
    Statement::new("SELECT stream_identity_observe(ARRAY(:unrecorded))")
        .fragment("unrecorded", include_str!("sql/list_unrecorded.sql"))
        .query(client)
        .await?;
    Ok(())
}

/// SQL that is true of a log `alias` that has one of `contract_ids` at a time at which it names the stream. Their texts are the
/// elements of the statement's parameter `parameter`, such as `:contract_ids`.
pub(super) fn has_contract_id(alias: &str, parameter: &str, contract_ids: &[ContractId]) -> String {
    let conditions = contract_ids.iter().enumerate().map(|(index, contract_id)| {
        let (number, in_time) = (index + 1, in_time(alias, contract_id));
        format!(r#"{alias}."streamId" = {parameter}[{number}]{in_time}"#)
    });
    let conditions: Vec<_> = conditions.collect();
    if conditions.is_empty() { "false".into() } else { format!("({})", conditions.join(" OR ")) }
}

/// SQL that follows another condition: that the log `alias` is of a time at which `contract_id` names the stream.
pub(super) fn in_time(alias: &str, contract_id: &ContractId) -> String {
    let bound = |operator: &str, time: Option<DateTime<Utc>>| {
        time.map(|time| {
            let time = time.naive_utc().format("%Y-%m-%d %H:%M:%S%.6f");
            format!(r#" AND {alias}."createdAt" {operator} '{time}'"#)
        })
    };
    [bound(">=", contract_id.from), bound("<", contract_id.until)].into_iter().flatten().collect()
}

/// Their texts: the parameter of [`has_contract_id`].
pub(super) fn texts(contract_ids: &[ContractId]) -> Vec<&str> {
    contract_ids.iter().map(|contract_id| contract_id.id.as_str()).collect()
}
