use seal::RowForm;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::former::FormerArchive;
use super::statement::Statement;
use crate::error::{Error, HostFinding, Result};

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
#[expect(clippy::struct_excessive_bools, reason = "answers to questions that have nothing to do with each other")]
#[derive(Debug)]
struct MirroredColumn {
    name: String,
    /// The name as SQL writes it.
    quoted: String,
    /// Its type in `EventLog`, without what limits its length.
    hot: String,
    /// The type that the archive is to have it with: the same, where that is PostgreSQL's own.
    wanted: String,
    /// Whether its type in `EventLog` is the host's.
    is_foreign: bool,
    /// Its collation there, as SQL writes it, when that is not the type's own.
    collation: Option<String>,
    /// Its type in the archive.
    archived: Option<String>,
    /// Whether the archive has a column of this name for itself.
    is_taken: bool,
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
    /// [`Error::ArchiveColumnsDiffer`] naming each column that the archive lacks or has with another type (rule 5);
    /// [`Error::HostRefuses`] when the archive has a column of the same name for itself.
    pub(crate) async fn load(client: &impl GenericClient) -> Result<Self> {
        let columns = list_columns(client).await?;
        if let Some(column) = columns.iter().find(|column| column.is_taken) {
            return Err(HostFinding::column_name_taken("\"EventLog\"", &column.name).into());
        }
        let differing: Vec<String> = columns.iter().filter_map(MirroredColumn::difference).collect();
        if differing.is_empty() { Ok(Self(columns)) } else { Err(Error::ArchiveColumnsDiffer { columns: differing }) }
    }

    /// The columns as SQL, each behind `prefix`.
    pub(super) fn list(&self, prefix: &str) -> String {
        let columns = self.0.iter().map(|column| format!("{prefix}{}", column.quoted));
        columns.collect::<Vec<_>>().join(", ")
    }

    /// The values of a row of `EventLog` as the archive has them, in the same order.
    pub(super) fn archived_values(&self) -> String {
        self.0.iter().map(|column| column.archived_value("")).collect::<Vec<_>>().join(", ")
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
    /// `event_index` for that. Each as a value of the log's own type; a length is checked when it is written, where a cast
    /// would cut.
    pub(super) fn restored_values(&self, event_index: &str) -> String {
        self.join_restored(|MirroredColumn { name, quoted, hot, is_required, default, .. }| match default {
            _ if name == EVENT_INDEX => format!("({event_index})::{hot}"),
            Some(default) if *is_required => format!("COALESCE(g.{quoted}::{hot}, {default})"),
            _ => format!("g.{quoted}::{hot}"),
        })
    }

    /// SQL that is true when the restored row `r` is the archived row `g`: what that never got may be anything.
    pub(super) fn is_restored(&self) -> String {
        let columns = self.0.iter().filter(|column| !column.is_generated);
        let same = columns.map(|column| {
            let MirroredColumn { name, quoted, is_required, .. } = column;
            let restored = column.text("r.");
            let filled =
                if *is_required || name == EVENT_INDEX { format!("g.{quoted} IS NULL OR ") } else { String::new() };
            format!("({filled}{restored} IS NOT DISTINCT FROM g.{quoted}::text)")
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
        let conditions = columns.map(|column| {
            let MirroredColumn { name, quoted, .. } = column;
            let text = column.text("e.");
            let gap = if CARRIED_OVER.contains(&name.as_str()) { "false" } else { &format!("a.{quoted} IS NULL") };
            format!("({gap} OR {text} IS NOT DISTINCT FROM a.{quoted}::text)")
        });
        conditions.collect::<Vec<_>>().join(" AND ")
    }

    /// SQL that is true when `e` has something that its archived copy `a` has not.
    pub(super) fn gap(&self) -> String {
        let gap =
            |MirroredColumn { quoted, .. }: &MirroredColumn| format!("(a.{quoted} IS NULL AND e.{quoted} IS NOT NULL)");
        let gaps = self.0.iter().filter(|column| !CARRIED_OVER.contains(&column.name.as_str())).map(gap);
        gaps.reduce(|sql, next| format!("{sql} OR {next}")).unwrap_or_else(|| "false".into())
    }

    /// SQL that is true when `former` has a copy of the row `e` that differs; for each row a look-up of its own.
    pub(super) fn differ_from(&self, former: &FormerArchive) -> String {
        let (name, same) = (&former.name, self.is_former(former));
        format!("(SELECT bool_or(NOT ({same})) FROM {name} f WHERE f.id = e.id::text) IS TRUE")
    }

    /// SQL that is true when the row `e` of `EventLog` has all that the row `f` of `former` has.
    pub(super) fn is_former(&self, former: &FormerArchive) -> String {
        self.equal_former(former, |column| column.text("e."))
    }

    /// The same for the archived row `a`.
    pub(super) fn is_adopted(&self, former: &FormerArchive) -> String {
        self.equal_former(former, |column| format!("a.{}::text", column.quoted))
    }

    fn equal_former(&self, former: &FormerArchive, text: impl Fn(&MirroredColumn) -> String) -> String {
        let is_carried = |column: &&MirroredColumn| {
            CARRIED_OVER.contains(&column.name.as_str()) && former.columns.contains(&column.name)
        };
        let carried = self.0.iter().filter(is_carried);
        let same = carried.map(|column| format!("{} IS NOT DISTINCT FROM f.{}::text", text(column), column.quoted));
        same.collect::<Vec<_>>().join(" AND ")
    }

    /// The type of the ids of `EventLog`, as SQL writes it.
    pub(super) fn id_type(&self) -> &str {
        self.0.iter().find(|column| column.name == "id").map_or("text", |column| &column.hot)
    }

    /// The type of the ids of the archive.
    pub(super) fn archived_id_type(&self) -> &str {
        self.0.iter().find(|column| column.name == "id").map_or("text", |column| &column.wanted)
    }

    /// SQL for a row `f` of `former` as the archive has it, column by column.
    pub(super) fn adopted_values(&self, former: &FormerArchive) -> String {
        let value = |column: &MirroredColumn| {
            let MirroredColumn { name, quoted, wanted, .. } = column;
            if former.columns.contains(name) {
                format!("f.{quoted}::text::{wanted}")
            } else {
                format!("NULL::{wanted}")
            }
        };
        self.0.iter().map(value).collect::<Vec<_>>().join(", ")
    }

    /// Names of the columns of `former` that the archive has no place for.
    pub(super) fn list_missing_of(&self, former: &FormerArchive) -> Vec<String> {
        former.columns.iter().filter(|name| *name != "archivedAt" && !self.has(name)).cloned().collect()
    }
}

impl MirroredColumn {
    /// SQL for its value in `EventLog` as text.
    fn text(&self, prefix: &str) -> String {
        let value = format!("{prefix}{}", self.quoted);
        if self.is_instant() {
            format!("{value}::timestamp::text")
        } else if self.is_foreign {
            write_out(&value)
        } else {
            format!("{value}::text")
        }
    }

    /// SQL for its value in `EventLog` as the archive has it.
    fn archived_value(&self, prefix: &str) -> String {
        match self.wanted.as_str() {
            "text" if self.is_foreign => self.text(prefix),
            "text[]" if self.is_foreign => format!("({})::text[]", self.text(prefix)),
            _ if self.is_instant() => format!("{prefix}{}::timestamp", self.quoted),
            _ => format!("{prefix}{}", self.quoted),
        }
    }

    /// The column of the archive, as SQL defines it.
    fn definition(&self) -> String {
        let Self { name, quoted, wanted, collation, .. } = self;
        let collation = collation.as_ref().map(|name| format!(" COLLATE {name}")).unwrap_or_default();
        let is_key = if ["id", "createdAt"].contains(&name.as_str()) { " NOT NULL" } else { "" };
        format!("{quoted} {wanted}{collation}{is_key}")
    }

    /// Whether `EventLog` has it as something else than the archive's time in UTC, which the session's time zone is, too.
    fn is_instant(&self) -> bool {
        self.name == "createdAt" && self.hot != self.wanted
    }

    fn difference(&self) -> Option<String> {
        let Self { name, quoted, wanted, .. } = self;
        if self.is_taken {
            return None;
        }
        let is_plain = name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_'));
        let shown = if is_plain { name } else { quoted };
        match &self.archived {
            None => Some(format!("{shown} is missing")),
            Some(archived) if archived != wanted => Some(format!("{shown} is {archived} instead of {wanted}")),
            Some(_) => None,
        }
    }
}

async fn list_columns(client: &impl GenericClient) -> Result<Vec<MirroredColumn>> {
    let rows = Statement::new(include_str!("sql/list_mirrored_columns.sql")).query(client).await?;
    let parse = |row: &tokio_postgres::Row| {
        Ok(MirroredColumn {
            name: row.try_get("name")?,
            quoted: quote(row.try_get("name")?),
            hot: row.try_get("hot")?,
            wanted: row.try_get("wanted")?,
            is_foreign: row.try_get("is_foreign")?,
            collation: row.try_get("collation")?,
            archived: row.try_get("archived")?,
            is_taken: row.try_get("is_taken")?,
            is_required: row.try_get("is_required")?,
            is_generated: row.try_get("is_generated")?,
            default: match row.try_get::<_, Option<&str>>("sequence")? {
                Some(sequence) => Some(format!("nextval({}::regclass)", quote_literal(sequence))),
                None => row.try_get("default_value")?,
            },
        })
    };
    rows.iter().map(parse).collect()
}

/// SQL for the text of a value of a host's type, as the type writes it: a cast to text may be the host's own, and say anything.
pub(super) fn write_out(value: &str) -> String {
    format!("CASE num_nulls({value}) WHEN 0 THEN format('%s', {value}) END")
}

/// A name as SQL writes it.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL writes it.
pub(super) fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Names of the archive's columns.
pub(super) async fn list_archive_columns(client: &impl GenericClient) -> Result<Vec<String>> {
    Ok(list_typed_columns_of(client, "StreamArchive").await?.into_iter().map(|(name, _)| name).collect())
}

/// Names of a table's columns, each with its type as SQL writes it.
pub(super) async fn list_typed_columns_of(client: &impl GenericClient, table: &str) -> Result<Vec<(String, String)>> {
    let rows = client
        .query_typed(
            "SELECT attname::text AS name, format_type(atttypid, -1) AS type FROM pg_attribute \
             WHERE attrelid = quote_ident($1)::regclass AND attnum > 0 AND NOT attisdropped",
            &[(&table, Type::TEXT)],
        )
        .await?;
    rows.iter().map(|row| Ok((row.try_get("name")?, row.try_get("type")?))).collect()
}

/// Names of the columns that the archive lacks or has with another type, each with what is wrong about it.
pub(crate) async fn list_differences(client: &impl GenericClient) -> Result<Vec<String>> {
    Ok(list_columns(client).await?.iter().filter_map(MirroredColumn::difference).collect())
}

/// Makes the archive with the columns of `EventLog`, unless it is there.
pub(crate) async fn create_archive(client: &impl GenericClient) -> Result<()> {
    let columns = list_columns(client).await?;
    // A column of the host's of that name is refused before anything is archived.
    let columns = columns.iter().filter(|column| !column.is_taken).map(MirroredColumn::definition);
    let columns = columns.collect::<Vec<_>>().join(", ");
    let create = format!(
        r#"CREATE TABLE IF NOT EXISTS "StreamArchive" (
            {columns},
            "archivedAt" TIMESTAMP(3) NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')
        ) PARTITION BY RANGE ("createdAt")"#
    );
    Ok(client.batch_execute(&create).await?)
}

/// Gives the archive each column of `EventLog` that it lacks, and each type that it has otherwise, as long as no archived
/// value's text changes with it. Returns what changed.
///
/// # Errors
///
/// [`Error::ArchiveColumnNotConvertible`], and then the transaction is of no use any more.
pub(crate) async fn align(client: &impl GenericClient) -> Result<Vec<String>> {
    let mut changed = Vec::new();
    for column in list_columns(client).await? {
        let Some(difference) = column.difference() else { continue };
        if column.archived.is_none() {
            client.batch_execute(&format!(r#"ALTER TABLE "StreamArchive" ADD {}"#, column.definition())).await?;
        } else {
            convert(client, &column).await?;
        }
        changed.push(difference);
    }
    Ok(changed)
}

/// Carries a column that the host has renamed over to the archive, where it still has its `former` name: also when the archive has got a
/// column of the `present` name since. What is sealed stays true. Returns whether there was anything to do.
///
/// # Errors
///
/// [`Error::InvalidInput`] when it is no renaming.
pub(crate) async fn rename(client: &impl GenericClient, former: &str, present: &str) -> Result<bool> {
    let refuse =
        |why: String| Err(Error::invalid("rename", format!("must be former=present of a renamed column: {why}")));
    let columns = list_columns(client).await?;
    let Some(column) = columns.iter().find(|column| column.name == present) else {
        return refuse(format!("\"EventLog\" has no column {}", quote(present)));
    };
    if columns.iter().any(|column| column.name == former) {
        return refuse(format!("\"EventLog\" still has a column {}", quote(former)));
    }
    if [former, present].iter().any(|name| ["id", "createdAt", "archivedAt"].contains(name)) {
        return refuse("the archive is kept by its keys".into());
    }
    client.batch_execute(r#"LOCK TABLE "StreamArchive" IN ACCESS EXCLUSIVE MODE"#).await?;
    if !list_archive_columns(client).await?.iter().any(|name| name == former) {
        return match column.archived {
            Some(_) => Ok(false),
            None => refuse(format!("the archive has no column {}", quote(former))),
        };
    }
    let (old, new, wanted) = (quote(former), quote(present), &column.wanted);
    if column.archived.is_none() {
        client.batch_execute(&format!(r#"ALTER TABLE "StreamArchive" RENAME {old} TO {new}"#)).await?;
    } else {
        // Whoever migrated before without the names: rows that came since have the present one.
        let (former_text, present_text) = (quote_literal(former), quote_literal(present));
        let are_two = format!(
            r#"SELECT EXISTS (SELECT FROM "StreamArchive" WHERE {old} IS NOT NULL AND {new} IS NOT NULL)
                   OR EXISTS (
                       SELECT FROM "StreamArchive" a
                       JOIN "ArchiveSeal" s
                           ON s.month = to_char(a."createdAt", 'YYYY-MM') AND a."archivedAt" <= s."archivedAt"
                           AND a."archivedAt" > COALESCE(s."archivedAfter", '-infinity')
                       WHERE a.{old} IS NOT NULL
                         AND COALESCE(s."presentColumns", s.columns) @> ARRAY[{former_text}, {present_text}]
                   )"#
        );
        if client.query_typed_one(&are_two, &[]).await?.try_get(0)? {
            return refuse("logs were archived with both".into());
        }
        let carry = format!(
            r#"UPDATE "StreamArchive" SET {new} = {old}::text::{wanted} WHERE {old} IS NOT NULL
               RETURNING {old}::text IS DISTINCT FROM {new}::text AS is_altered"#
        );
        let altered = format!("WITH carried AS ({carry}) SELECT COALESCE(bool_or(is_altered), false) FROM carried");
        let refused =
            |source| Error::ArchiveColumnNotConvertible { column: former.into(), wanted: wanted.clone(), source };
        let row = client.query_typed_one(&altered, &[]).await.map_err(|error| refused(Some(error)))?;
        if row.try_get(0)? {
            return Err(refused(None));
        }
        client.batch_execute(&format!(r#"ALTER TABLE "StreamArchive" DROP {old}"#)).await?;
    }
    Statement::new(include_str!("sql/rename_sealed_column.sql"))
        .bind("former", &former, Type::TEXT)
        .bind("present", &present, Type::TEXT)
        .execute(client)
        .await?;
    Ok(true)
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
