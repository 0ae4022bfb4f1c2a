use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient};

use super::row_form::RowForm;
use crate::error::{Error, Result};

/// Columns that the former service carried over to its archive. It dropped all others, so only these must agree between
/// two copies of a row (domain rule 6).
const CARRIED_OVER: [&str; 11] = [
    "id",
    "eventType",
    "streamId",
    "txHash",
    "ledger",
    "ledgerClosedAt",
    "sender",
    "receiver",
    "amount",
    "metadata",
    "createdAt",
];

/// Where in its transaction an event is; younger than many rows.
const EVENT_INDEX: &str = "eventIndex";

/// A column of `EventLog` and its counterpart in the archive.
#[derive(Debug)]
struct MirroredColumn {
    name: String,
    /// The name as SQL writes it.
    quoted: String,
    /// Its type in `EventLog`.
    wanted: String,
    /// The same without its length, as SQL writes it.
    own_type: String,
    /// Its collation there, as SQL writes it, when that is not the type's own.
    collation: Option<String>,
    /// Its type in the archive.
    archived: Option<String>,
    /// Whether `EventLog` must have a value.
    is_required: bool,
    /// Whether `EventLog` computes it.
    is_generated: bool,
    /// What `EventLog` fills in, as SQL writes it.
    default: Option<String>,
}

/// The columns of `EventLog`, all of which the archive has too.
#[derive(Debug)]
pub(crate) struct MirroredColumns(Vec<MirroredColumn>);

impl MirroredColumns {
    /// Reads the columns of both tables. Holds for a transaction that has locked `EventLog` against changes.
    ///
    /// # Errors
    ///
    /// [`Error::ArchiveColumnsDiffer`] naming each column that the archive lacks or has with another type (rule 5).
    pub(crate) async fn load(client: &impl GenericClient) -> Result<Self> {
        let columns = list_columns(client).await?;
        let differing: Vec<String> = columns.iter().filter_map(MirroredColumn::difference).collect();
        if differing.is_empty() { Ok(Self(columns)) } else { Err(Error::ArchiveColumnsDiffer { columns: differing }) }
    }

    /// The columns as SQL, each behind `prefix`.
    pub(super) fn list(&self, prefix: &str) -> String {
        let columns = self.0.iter().map(|column| format!("{prefix}{}", column.quoted));
        columns.collect::<Vec<_>>().join(", ")
    }

    /// Whether rows can be chained by hashes.
    pub(super) fn have_hashes(&self) -> bool {
        ["entry_hash", "parent_hash"].iter().all(|name| self.has(name))
    }

    /// Whether rows tell where in a transaction their event is.
    pub(super) fn have_event_index(&self) -> bool {
        self.has(EVENT_INDEX)
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|column| column.name == name)
    }

    /// Whether a row of `EventLog` must tell where in its transaction its event is.
    pub(super) fn require_event_index(&self) -> bool {
        self.0.iter().any(|column| column.name == EVENT_INDEX && column.is_required)
    }

    /// The columns that are written when a row goes back to `EventLog`, as SQL.
    pub(super) fn restored_names(&self) -> String {
        self.join_restored(|column| column.quoted.clone())
    }

    /// The same, each behind `prefix`.
    pub(super) fn restored_names_of(&self, prefix: &str) -> String {
        self.join_restored(|column| format!("{prefix}{}", column.quoted))
    }

    /// What is written in them, of the archived row `g`: what `EventLog` requires and the row never got is the default, and
    /// `event_index` for that. Each value becomes one of `EventLog`'s own type: the archive may have it as text.
    pub(super) fn restored_values(&self, event_index: &str) -> String {
        self.join_restored(|MirroredColumn { name, quoted, own_type, is_required, default, .. }| match default {
            _ if name == EVENT_INDEX => format!("({event_index})::{own_type}"),
            Some(default) if *is_required => format!("COALESCE(g.{quoted}::{own_type}, {default})"),
            _ => format!("g.{quoted}::{own_type}"),
        })
    }

    /// SQL that is true when the restored row `r` is the archived row `g`: what that never got may be anything.
    pub(super) fn is_restored(&self) -> String {
        let columns = self.0.iter().filter(|column| !column.is_generated);
        let same = columns.map(|MirroredColumn { name, quoted, is_required, .. }| {
            let filled =
                if *is_required || name == EVENT_INDEX { format!("g.{quoted} IS NULL OR ") } else { String::new() };
            format!("({filled}r.{quoted}::text IS NOT DISTINCT FROM g.{quoted}::text)")
        });
        same.collect::<Vec<_>>().join(" AND ")
    }

    fn join_restored(&self, sql: impl Fn(&MirroredColumn) -> String) -> String {
        self.0.iter().filter(|column| !column.is_generated).map(sql).collect::<Vec<_>>().join(", ")
    }

    /// Names of the columns without which `EventLog` takes no row and that it cannot fill in.
    pub(super) fn list_indispensable(&self) -> Vec<&str> {
        let is_indispensable = |column: &&MirroredColumn| {
            column.is_required && !column.is_generated && column.default.is_none() && column.name != EVENT_INDEX
        };
        self.0.iter().filter(is_indispensable).map(|column| column.name.as_str()).collect()
    }

    /// Names of the columns of archived rows in the form `form` that `EventLog` has not.
    pub(super) fn list_archive_only<'a>(&self, form: &'a RowForm) -> Vec<&'a str> {
        let columns = form.columns().iter().map(String::as_str);
        columns.filter(|name| *name != "archivedAt" && !self.has(name)).collect()
    }

    /// SQL that is true when `e` and `a`, rows of the same event under two ids, have the same contents: whatever an event
    /// gets anew when the host ingests it again does not count.
    pub(super) fn same_contents(&self) -> String {
        self.equal(&["id", "createdAt", "parent_hash", "entry_hash"])
    }

    /// SQL that is true when the copies `e` and `a` agree. Compared as text, which every type has and which is exact.
    pub(super) fn agree(&self) -> String {
        self.equal(&[])
    }

    /// The same in all columns but `ignored`. What the archived row never got does not count.
    fn equal(&self, ignored: &[&str]) -> String {
        let columns = self.0.iter().filter(|column| !ignored.contains(&column.name.as_str()));
        let conditions = columns.map(|MirroredColumn { name, quoted, .. }| {
            let gap = if CARRIED_OVER.contains(&name.as_str()) { "false" } else { &format!("a.{quoted} IS NULL") };
            format!("({gap} OR e.{quoted}::text IS NOT DISTINCT FROM a.{quoted}::text)")
        });
        conditions.collect::<Vec<_>>().join(" AND ")
    }

    /// SQL assignments that fill in what the archived copy `a` never got from `e`.
    pub(super) fn fill(&self) -> String {
        self.join_not_carried(|column| format!("{column} = COALESCE(a.{column}, e.{column})"), ", ")
            .unwrap_or_else(|| "id = a.id".into())
    }

    /// SQL that is true when there is something to fill in.
    pub(super) fn gap(&self) -> String {
        self.join_not_carried(|column| format!("(a.{column} IS NULL AND e.{column} IS NOT NULL)"), " OR ")
            .unwrap_or_else(|| "false".into())
    }

    fn join_not_carried(&self, sql: impl Fn(&str) -> String, separator: &str) -> Option<String> {
        let not_carried = self.0.iter().filter(|column| !CARRIED_OVER.contains(&column.name.as_str()));
        not_carried.map(|column| sql(&column.quoted)).reduce(|sql, next| sql + separator + &next)
    }
}

impl MirroredColumn {
    fn difference(&self) -> Option<String> {
        let Self { quoted, wanted, .. } = self;
        match &self.archived {
            None => Some(format!("{quoted} is missing")),
            Some(archived) if archived != wanted => Some(format!("{quoted} is {archived} instead of {wanted}")),
            Some(_) => None,
        }
    }
}

async fn list_columns(client: &impl GenericClient) -> Result<Vec<MirroredColumn>> {
    let rows = client.query_typed(include_str!("sql/list_mirrored_columns.sql"), &[]).await?;
    let parse = |row: &tokio_postgres::Row| {
        Ok(MirroredColumn {
            name: row.try_get("name")?,
            quoted: row.try_get("quoted")?,
            wanted: row.try_get("wanted")?,
            own_type: row.try_get("own_type")?,
            collation: row.try_get("collation")?,
            archived: row.try_get("archived")?,
            is_required: row.try_get("is_required")?,
            is_generated: row.try_get("is_generated")?,
            default: row.try_get("default_value")?,
        })
    };
    rows.iter().map(parse).collect()
}

/// A name as SQL writes it.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Names of the archive's columns.
pub(super) async fn list_archive_columns(client: &impl GenericClient) -> Result<Vec<String>> {
    list_columns_of(client, "StreamArchive").await
}

/// Names of a table's columns.
pub(super) async fn list_columns_of(client: &impl GenericClient, table: &str) -> Result<Vec<String>> {
    let rows = client
        .query_typed(
            "SELECT attname::text AS name FROM pg_attribute \
             WHERE attrelid = quote_ident($1)::regclass AND attnum > 0 AND NOT attisdropped",
            &[(&table, Type::TEXT)],
        )
        .await?;
    rows.iter().map(|row| Ok(row.try_get("name")?)).collect()
}

/// Gives the archive each column of `EventLog` that it lacks, and each type that it has otherwise, as long as no archived
/// value's text changes with it. Returns what changed.
///
/// # Errors
///
/// [`Error::ArchiveColumnNotConvertible`], and then nothing has changed.
pub(crate) async fn align(client: &mut Client) -> Result<Vec<String>> {
    let transaction = client.transaction().await?;
    let mut changed = Vec::new();
    for column in list_columns(&transaction).await? {
        let Some(difference) = column.difference() else { continue };
        let MirroredColumn { quoted, wanted, .. } = &column;
        let wanted = column.collation.as_ref().map_or(wanted.clone(), |name| format!("{wanted} COLLATE {name}"));
        if column.archived.is_none() {
            transaction.batch_execute(&format!(r#"ALTER TABLE "StreamArchive" ADD {quoted} {wanted}"#)).await?;
        } else {
            convert(&transaction, &column).await?;
        }
        changed.push(difference);
    }
    transaction.commit().await?;
    Ok(changed)
}

async fn convert(client: &impl GenericClient, column: &MirroredColumn) -> Result<()> {
    let MirroredColumn { name, quoted, wanted, .. } = column;
    let refused = |source| Error::ArchiveColumnNotConvertible { column: name.clone(), wanted: wanted.clone(), source };
    client.batch_execute(r#"LOCK TABLE "StreamArchive" IN ACCESS EXCLUSIVE MODE"#).await?;
    let altered = format!(
        r#"SELECT EXISTS (SELECT FROM "StreamArchive" WHERE {quoted}::text IS DISTINCT FROM {quoted}::{wanted}::text)"#
    );
    let row = client.query_typed_one(&altered, &[]).await.map_err(|error| refused(Some(error)))?;
    if row.try_get(0)? {
        return Err(refused(None));
    }
    let convert = format!(r#"ALTER TABLE "StreamArchive" ALTER {quoted} TYPE {wanted} USING {quoted}::{wanted}"#);
    client.batch_execute(&convert).await.map_err(|error| refused(Some(error)))
}

/// Checks that the host's two tables are there.
///
/// # Errors
///
/// [`Error::HostTableMissing`].
pub(crate) async fn check_host_tables(client: &impl GenericClient) -> Result<()> {
    for table in ["Stream", "EventLog"] {
        let row = client
            .query_typed_one("SELECT to_regclass(quote_ident($1)) IS NOT NULL AS there", &[(&table, Type::TEXT)])
            .await?;
        if !row.try_get::<_, bool>("there")? {
            return Err(Error::HostTableMissing { table });
        }
    }
    Ok(())
}
