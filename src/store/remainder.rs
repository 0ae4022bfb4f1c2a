use std::collections::BTreeMap;

use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

use super::archive_columns::MirroredColumns;
use super::decode::{decode, decode_value};
use super::event_log::{Due, IS_NOT_RESTORED, chain_head};
use super::former::FormerArchive;
use super::holds;
use super::moving::is_referenced;
use super::statement::Statement;
use crate::error::Result;
use crate::host::HostFacts;
use crate::model::{DueMonth, HeldBack, HeldBackReason, MAX_HELD_BACK_IDS, Month};

/// What decides why a due row stays.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) due: Due,
    /// Types of events that stay.
    pub(crate) kept_types: &'a [String],
    /// The former service's archive, if it is there: a row of which it has a copy that differs stays.
    pub(crate) former: Option<&'a FormerArchive>,
}

/// The due rows that are left in `EventLog`.
#[derive(Debug, Default)]
pub(crate) struct Remainder {
    /// Those that stay for a reason.
    pub(crate) held_back: Vec<HeldBack>,
    /// Those that nothing holds; none where there are none. They were in use, or came after the batches had passed.
    pub(crate) unexplained: Option<HeldBack>,
    /// The months of these, oldest first.
    pub(crate) months: Vec<Month>,
}

/// Looks at all due rows that are left, as of one instant: the last act of a run (domain rule 11).
pub(crate) async fn count_remainder(
    client: &impl GenericClient,
    facts: &HostFacts,
    columns: &MirroredColumns,
    rules: &Rules<'_>,
) -> Result<Remainder> {
    let mut remainder = Remainder::default();
    for row in query(client, facts, columns, rules, "", "").await? {
        let reason: Option<HeldBackReason> = decode(&row, "reason")?;
        let held = HeldBack::new(
            reason.unwrap_or(HeldBackReason::InUse),
            row.try_get::<_, i64>("rows")?.unsigned_abs(),
            row.try_get("ids")?,
            row.try_get("objects")?,
        );
        if reason.is_some() {
            remainder.held_back.push(held);
        } else {
            remainder.months = decode_value("months", row.try_get::<_, Vec<&str>>("months")?.into())?;
            remainder.unexplained = Some(held);
        }
    }
    remainder.held_back.sort_by_key(|held| held.reason);
    Ok(remainder)
}

/// What a run would archive and hold back now.
#[derive(Debug, Default)]
pub(crate) struct DueRows {
    /// Rows that would be archived, oldest month first.
    pub(crate) months: Vec<DueMonth>,
    /// Rows that would stay.
    pub(crate) held_back: Vec<HeldBack>,
}

/// Counts all due rows by what would become of them, as of one instant.
pub(crate) async fn count_due_rows(
    client: &impl GenericClient,
    facts: &HostFacts,
    columns: &MirroredColumns,
    rules: &Rules<'_>,
) -> Result<DueRows> {
    let mut months: BTreeMap<Month, BTreeMap<String, u64>> = BTreeMap::new();
    let mut held: BTreeMap<HeldBackReason, HeldBack> = BTreeMap::new();
    let groups = r#"month, "eventType"::text AS event_type,"#;
    for row in query(client, facts, columns, rules, groups, r#", month, "eventType""#).await? {
        let rows = row.try_get::<_, i64>("rows")?.unsigned_abs();
        let Some(reason) = decode::<Option<HeldBackReason>>(&row, "reason")? else {
            let month = decode(&row, "month")?;
            let event_type = row.try_get::<_, Option<String>>("event_type")?.unwrap_or_default();
            *months.entry(month).or_default().entry(event_type).or_default() += rows;
            continue;
        };
        let group = HeldBack::new(reason, rows, row.try_get("ids")?, row.try_get("objects")?);
        match held.entry(reason) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(group);
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => entry.get_mut().add(group),
        }
    }
    let months = months.into_iter().map(|(month, event_types)| DueMonth {
        month,
        rows: event_types.values().sum(),
        event_types,
    });
    Ok(DueRows { months: months.collect(), held_back: held.into_values().collect() })
}

async fn query(
    client: &impl GenericClient,
    facts: &HostFacts,
    columns: &MirroredColumns,
    rules: &Rules<'_>,
    groups: &str,
    group_by: &str,
) -> Result<Vec<Row>> {
    let held = holds::list_held_streams(client).await?;
    let references = facts.references.iter().filter(|reference| !reference.is_self);
    let referenced_by: Vec<_> = references
        .map(|reference| {
            let name = format!("{} of {}", reference.constraint, reference.table).replace('\'', "''");
            format!("WHEN {} THEN '{name}'", is_referenced(reference))
        })
        .collect();
    let referenced_by =
        if referenced_by.is_empty() { "NULL::text".into() } else { format!("(CASE {} END)", referenced_by.join(" ")) };
    let most = i64::try_from(MAX_HELD_BACK_IDS).unwrap_or(i64::MAX);
    let rows = Statement::new(include_str!("sql/count_remainder.sql"))
        .fragment("chain_head", chain_head(columns))
        .fragment("is_restored", format!("NOT ({IS_NOT_RESTORED})"))
        .fragment("referenced_by", referenced_by)
        .fragment("is_conflict", is_conflict(columns, rules.former))
        .fragment("groups", groups)
        .fragment("group_by", group_by)
        .bind("cutoff", &rules.due.cutoff, Type::TIMESTAMP)
        .bind("has_hashes", &rules.due.has_hashes, Type::BOOL)
        .bind("held", &held, Type::TEXT_ARRAY)
        .bind("kept_types", &rules.kept_types, Type::TEXT_ARRAY)
        .bind("most_ids", &most, Type::INT8)
        .query(client)
        .await?;
    Ok(rows)
}

/// SQL that is true when the archive has the row `e`, or its event under another id, with other contents.
fn is_conflict(columns: &MirroredColumns, former: Option<&FormerArchive>) -> String {
    let differs = columns.agree();
    let mut copies = vec![format!(
        r#"(SELECT bool_or(NOT ({differs})) FROM "StreamArchive" a
            WHERE a.id = e.id AND a."createdAt" >= date_trunc('month', e."createdAt"::timestamp)
              AND a."createdAt" < date_trunc('month', e."createdAt"::timestamp) + interval '1 month')"#
    )];
    copies.extend(former.map(|former| columns.differ_from(former)));
    if columns.have_event_index() {
        let same = columns.same_contents();
        copies.push(format!(
            r#"(SELECT bool_and(NOT ({same})) FROM "StreamArchive" a
                WHERE a."txHash" = e."txHash" AND a."eventIndex" = e."eventIndex" AND a.id <> e.id)"#
        ));
    }
    format!("({})", copies.join(" OR "))
}
