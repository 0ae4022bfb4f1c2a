use chrono::{NaiveDateTime, TimeDelta};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use super::decode::decode;
use super::partitions::partition_name;
use super::row_form::RowForm;
use crate::error::Result;
use crate::model::Month;

/// Where a month's ledger goes on. Locked until the transaction ends: nobody else adds an entry meanwhile.
#[derive(Debug)]
pub(crate) struct LedgerHead {
    pub(crate) month: Month,
    /// Of the next entry.
    pub(crate) sequence: i32,
    /// Of the last entry.
    pub(crate) digest: Vec<u8>,
    /// Up to which rows are sealed; `None` when none is.
    pub(crate) archived_after: Option<NaiveDateTime>,
}

impl LedgerHead {
    /// The `archivedAt` of a batch that the next entry seals: `wanted`, unless an entry has it or a later one.
    pub(crate) fn next_archived_at(&self, wanted: NaiveDateTime) -> NaiveDateTime {
        self.archived_after.map_or(wanted, |sealed| wanted.max(sealed + TimeDelta::milliseconds(1)))
    }
}

/// Locks the head of the ledger of `month`, and makes it for the first batch.
pub(crate) async fn lock_head(client: &impl GenericClient, month: Month) -> Result<LedgerHead> {
    let row = client
        .query_typed_one(
            r#"INSERT INTO "ArchiveMonth" AS m (month, digest) VALUES ($1, sha256(convert_to($1, 'UTF8')))
               ON CONFLICT (month) DO UPDATE SET month = m.month
               RETURNING m.entries, m.digest, m."archivedAt""#,
            &[(&month.to_string(), Type::TEXT)],
        )
        .await?;
    Ok(LedgerHead {
        month,
        sequence: row.try_get::<_, i32>("entries")? + 1,
        digest: row.try_get("digest")?,
        archived_after: row.try_get("archivedAt")?,
    })
}

/// Why a batch has an entry in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SealKind {
    /// Rows came from `EventLog`.
    Archived,
    /// Adopted rows got what the former service had dropped.
    Completed,
    /// Rows went back to `EventLog`.
    Restored,
}

impl SealKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Archived => "archived",
            Self::Completed => "completed",
            Self::Restored => "restored",
        }
    }
}

/// The entry that a batch adds to a ledger.
#[derive(Debug)]
pub(crate) struct Seal<'a> {
    kind: SealKind,
    run: Uuid,
    head: &'a LedgerHead,
    month: String,
    /// Of the batch's rows; `None` for rows that leave.
    archived_after: Option<NaiveDateTime>,
    archived_at: Option<NaiveDateTime>,
    columns: &'a [String],
}

impl<'a> Seal<'a> {
    /// The entry of a batch of rows that are archived at `archived_at`, in the form `form`.
    pub(crate) fn of_archived(
        kind: SealKind,
        head: &'a LedgerHead,
        run: Uuid,
        archived_at: NaiveDateTime,
        form: &'a RowForm,
    ) -> Self {
        let (archived_after, archived_at) = (head.archived_after, Some(archived_at));
        Self { kind, run, head, month: head.month.to_string(), archived_after, archived_at, columns: form.columns() }
    }

    /// The entry of a batch of rows that leave.
    pub(crate) fn of_restored(head: &'a LedgerHead, run: Uuid, form: &'a RowForm) -> Self {
        let (kind, month) = (SealKind::Restored, head.month.to_string());
        Self { kind, run, head, month, archived_after: None, archived_at: None, columns: form.columns() }
    }

    /// Common table expressions that compute and add the entry, of a batch whose expression `source` returns
    /// [`RowForm::hashed_columns`]; of rows that leave, [`SealedForms::proof_columns`]. Their parameters are numbered from `first` on.
    pub(crate) fn sql(&self, source: &str, first: usize) -> String {
        let names = ["{month}", "{sequence}", "{run}", "{previous}", "{archived_after}", "{archived_at}", "{columns}"]
            .into_iter();
        let (digest, is_wrong) = match self.kind {
            SealKind::Archived | SealKind::Completed => {
                ("sha256(convert_to(content_hash || rest, 'UTF8'))", "entry_hash <> content_hash")
            }
            // Hashes were checked when the rows came.
            SealKind::Restored => ("proof", "false"),
        };
        let sql = include_str!("sql/seal_batch.sql")
            .replace("{source}", source)
            .replace("{digest}", digest)
            .replace("{is_wrong}", is_wrong)
            .replace("{kind}", self.kind.as_str())
            .replace("{removed}", &self.removed())
            .replace("{also}", if self.kind == SealKind::Restored { r#", "archivedAt""# } else { "" });
        names.enumerate().fold(sql, |sql, (index, name)| sql.replace(name, &format!("${}", first + index)))
    }

    /// SQL for what the entry hashes of the rows that left an earlier one for it.
    fn removed(&self) -> String {
        let rows = match self.kind {
            SealKind::Archived => return String::new(),
            // As they were.
            SealKind::Completed => "old",
            SealKind::Restored => "proof",
        };
        format!(" || ({})", digest_removals(rows))
    }

    /// The parameters of [`sql`](Self::sql).
    pub(crate) fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 7] {
        [
            (&self.month, Type::TEXT),
            (&self.head.sequence, Type::INT4),
            (&self.run, Type::UUID),
            (&self.head.digest, Type::BYTEA),
            (&self.archived_after, Type::TIMESTAMP),
            (&self.archived_at, Type::TIMESTAMP),
            (&self.columns, Type::TEXT_ARRAY),
        ]
    }
}

/// SQL that digests `rows`, which have createdAt, id, ledger and digest.
pub(super) fn digest_rows(rows: &str) -> String {
    include_str!("sql/digest_rows.sql").replace("{rows}", rows)
}

/// SQL that digests `rows` that left an entry, which have archivedAt, id, createdAt and digest.
pub(super) fn digest_removals(rows: &str) -> String {
    format!(
        r#"SELECT sha256(string_agg(archive_removal_digest("archivedAt", id, "createdAt", digest), ''
               ORDER BY "archivedAt", id COLLATE "C")) FROM {rows}"#
    )
}

/// The forms that the rows of one month were sealed in, each up to an "archivedAt", oldest first.
#[derive(Debug)]
pub(crate) struct SealedForms(Vec<(NaiveDateTime, RowForm)>);

impl SealedForms {
    /// SQL for what the entry of rows that leave is computed from: each row's digest is the one that it was sealed with.
    pub(crate) fn proof_columns(&self) -> String {
        format!(
            r#"id, "createdAt", "archivedAt", ledger, {} AS proof, NULL::text AS entry_hash, NULL::text AS content_hash"#,
            self.digest()
        )
    }

    /// SQL for the digest that a row was sealed with.
    pub(crate) fn digest(&self) -> String {
        self.by_form(|form| form.digest(""))
    }

    fn by_form(&self, sql: impl Fn(&RowForm) -> String) -> String {
        let mut forms = self.0.iter().rev();
        let last = forms.next().map_or_else(|| "NULL".into(), |(_, form)| sql(form));
        forms.fold(last, |later, (until, form)| {
            format!(r#"CASE WHEN "archivedAt" <= '{until}' THEN {} ELSE {later} END"#, sql(form))
        })
    }
}

/// The forms that the rows of `month` were sealed in: a host's column that is new makes another. `form` where none was.
pub(crate) async fn list_sealed_forms(
    client: &impl GenericClient,
    month: Month,
    form: &RowForm,
) -> Result<SealedForms> {
    let rows = client
        .query_typed(
            r#"SELECT "archivedAt" AS until, columns
               FROM (
                   SELECT sequence, "archivedAt", columns, lead(columns) OVER (ORDER BY sequence) AS next
                   FROM "ArchiveSeal" WHERE month = $1 AND kind <> 'restored'
               ) seal
               WHERE columns IS DISTINCT FROM next ORDER BY sequence"#,
            &[(&month.to_string(), Type::TEXT)],
        )
        .await?;
    let parse = |row: &Row| Ok((row.try_get("until")?, RowForm::new(row.try_get("columns")?)));
    let mut forms: Vec<_> = rows.iter().map(parse).collect::<Result<_>>()?;
    if forms.is_empty() {
        forms.push((month.end(), form.clone()));
    }
    Ok(SealedForms(forms))
}

/// The ledger numbers of the rows of one month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LedgerRange {
    pub(crate) month: Month,
    pub(crate) min: i64,
    pub(crate) max: i64,
}

/// Months with rows that other runs than `run` have archived, and the ledger numbers of these.
pub(crate) async fn list_archived_before(client: &impl GenericClient, run: Uuid) -> Result<Vec<LedgerRange>> {
    let rows = client
        .query_typed(
            r#"SELECT month, min("minLedger") AS min, max("maxLedger") AS max FROM "ArchiveSeal"
               WHERE kind <> 'restored' AND "runId" IS DISTINCT FROM $1 AND "minLedger" IS NOT NULL
                 -- An operator may have dropped a month.
                 AND to_regclass(quote_ident('StreamArchive_' || replace(month, '-', '_'))) IS NOT NULL
               GROUP BY month ORDER BY month"#,
            &[(&run, Type::UUID)],
        )
        .await?;
    let parse = |row: &Row| {
        Ok(LedgerRange { month: decode(row, "month")?, min: row.try_get("min")?, max: row.try_get("max")? })
    };
    rows.iter().map(parse).collect()
}

/// Months whose partition has rows from before there was a ledger, oldest first.
pub(crate) async fn list_unsealed_months(client: &impl GenericClient) -> Result<Vec<Month>> {
    let rows = client
        .query_typed(
            r#"SELECT month
               FROM (
                   SELECT replace(right(p.relname, 7), '_', '-') AS month
                   FROM pg_inherits i
                   JOIN pg_class p ON p.oid = i.inhrelid
                   WHERE i.inhparent = '"StreamArchive"'::regclass AND p.relname ~ '^StreamArchive_[0-9]{4}_[0-9]{2}$'
               ) partition
               WHERE NOT EXISTS (SELECT FROM "ArchiveMonth" m WHERE m.month = partition.month)
               ORDER BY month"#,
            &[],
        )
        .await?;
    rows.iter().map(|row| decode(row, "month")).collect()
}

/// Seals all rows of `month`, which were there before there was a ledger, as one entry. Returns how many they are.
pub(crate) async fn seal_adopted(client: &impl GenericClient, month: Month) -> Result<u64> {
    let head = lock_head(client, month).await?;
    if head.sequence > 1 {
        // Somebody else did just now.
        return Ok(0);
    }
    let form = RowForm::load(client).await?;
    let statement = include_str!("sql/seal_adopted.sql")
        .replace("{partition}", &partition_name(month))
        .replace("{digest}", &form.digest(""))
        .replace("{digest_rows}", &digest_rows("sealed"));
    let row = client
        .query_typed_one(
            &statement,
            &[(&month.to_string(), Type::TEXT), (&head.digest, Type::BYTEA), (&form.columns(), Type::TEXT_ARRAY)],
        )
        .await?;
    Ok(row.try_get::<_, i64>("rows")?.unsigned_abs())
}
