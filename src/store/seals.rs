use chrono::{NaiveDateTime, TimeDelta};
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use super::decode::decode;
use super::leases::MonthLease;
use super::partitions::partition_name;
use super::row_form::RowForm;
use super::statement::Statement;
use crate::error::Result;
use crate::model::Month;

/// Where a month's chain of seals goes on.
#[derive(Debug)]
pub(crate) struct SealChain {
    pub(crate) month: Month,
    /// Of the next seal.
    pub(crate) sequence: i32,
    /// Of the last seal.
    pub(crate) digest: Vec<u8>,
    /// Up to which rows are sealed; `None` when none is.
    pub(crate) archived_after: Option<NaiveDateTime>,
}

impl SealChain {
    /// The `archivedAt` of a batch that the next seal is of: `wanted`, unless a seal has it or a later one.
    pub(crate) fn next_archived_at(&self, wanted: NaiveDateTime) -> NaiveDateTime {
        self.archived_after.map_or(wanted, |sealed| wanted.max(sealed + TimeDelta::milliseconds(1)))
    }

    async fn load(client: &impl GenericClient, month: Month, lock: &str) -> Result<Self> {
        let sql = format!(r#"SELECT seals, digest, "archivedAt" FROM "ArchiveMonth" WHERE month = $1 {lock}"#);
        let row = client.query_typed_one(&sql, &[(&month.to_string(), Type::TEXT)]).await?;
        Ok(Self {
            month,
            sequence: row.try_get::<_, i32>("seals")? + 1,
            digest: row.try_get("digest")?,
            archived_after: row.try_get("archivedAt")?,
        })
    }
}

/// The chain of the month that `lease` is of. Others can claim the month meanwhile, but `migrate` adds no seal.
pub(crate) async fn get_chain(client: &impl GenericClient, lease: &MonthLease) -> Result<SealChain> {
    SealChain::load(client, lease.month, "FOR KEY SHARE").await
}

/// The chain of `month` for `migrate`, which works on no run's behalf: until the transaction ends nobody else adds a seal.
pub(crate) async fn lock_chain(client: &impl GenericClient, month: Month) -> Result<SealChain> {
    client
        .execute_typed(
            r#"INSERT INTO "ArchiveMonth" (month, digest) VALUES ($1, sha256(convert_to($1, 'UTF8'))) ON CONFLICT DO NOTHING"#,
            &[(&month.to_string(), Type::TEXT)],
        )
        .await?;
    SealChain::load(client, month, "FOR UPDATE").await
}

/// Advances the chain of `month`, which [`lock_chain`] has locked, to the seal that this transaction has added.
pub(crate) async fn advance_chain(client: &impl GenericClient, month: Month) -> Result<()> {
    Statement::new(r#"UPDATE "ArchiveMonth" m SET :advanced WHERE m.month = :month"#)
        .fragment("advanced", ADVANCED)
        .bind("month", &month.to_string(), Type::TEXT)
        .execute(client)
        .await?;
    Ok(())
}

/// SQL that advances the chain of the row `m` of "ArchiveMonth".
pub(super) const ADVANCED: &str = include_str!("sql/advance_chain.sql");

/// Why a batch has a seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SealKind {
    /// Rows came from `EventLog`.
    Archived,
    /// Rows were copied from the former service's archive.
    Adopted,
    /// Rows went back to `EventLog`.
    Restored,
}

/// The seal that a batch adds to its month's chain.
#[derive(Debug)]
pub(crate) struct Seal<'a> {
    kind: SealKind,
    run: Option<Uuid>,
    chain: &'a SealChain,
    month: String,
    /// Of the batch's rows; `None` for rows that leave.
    archived_after: Option<NaiveDateTime>,
    archived_at: Option<NaiveDateTime>,
    columns: &'a [String],
}

impl<'a> Seal<'a> {
    /// The seal of a batch of rows that are archived at `archived_at`, in the form `form`.
    pub(crate) fn archiving(chain: &'a SealChain, run: Uuid, archived_at: NaiveDateTime, form: &'a RowForm) -> Self {
        let archived_at = Some(archived_at);
        Self {
            archived_at,
            archived_after: chain.archived_after,
            ..Self::new(SealKind::Archived, chain, Some(run), form)
        }
    }

    /// The seal of a batch of rows that are copied, which have times of their own: [`Seal::put_into`]'s statement says up to which.
    pub(crate) fn adopting(chain: &'a SealChain, form: &'a RowForm) -> Self {
        Self { archived_after: chain.archived_after, ..Self::new(SealKind::Adopted, chain, None, form) }
    }

    /// The seal of a batch of rows that leave.
    pub(crate) fn restoring(chain: &'a SealChain, run: Uuid, form: &'a RowForm) -> Self {
        Self::new(SealKind::Restored, chain, Some(run), form)
    }

    fn new(kind: SealKind, chain: &'a SealChain, run: Option<Uuid>, form: &'a RowForm) -> Self {
        let (month, columns) = (chain.month.to_string(), form.columns());
        Self { kind, run, chain, month, archived_after: None, archived_at: None, columns }
    }

    /// Puts the common table expressions that compute and add the seal in the place of `:proof` of a statement that writes a batch.
    /// Its expression `source` returns [`RowForm::hashed_columns`]; of rows that leave, [`SealedForms::proof_columns`].
    pub(super) fn put_into<'b>(&'b self, statement: Statement<'b>, source: &'static str) -> Statement<'b> {
        let (kind, digest, is_wrong) = match self.kind {
            SealKind::Archived => ("'archived'", ROW_DIGEST, "entry_hash <> content_hash"),
            SealKind::Adopted => ("'adopted'", ROW_DIGEST, "false"),
            // Hashes were checked when the rows came.
            SealKind::Restored => ("'restored'", "proof", "false"),
        };
        let is_restored = self.kind == SealKind::Restored;
        let removed = if is_restored { format!("({})", digest_removals("proof")) } else { "''".into() };
        statement
            .fragment("proof", include_str!("sql/seal_batch.sql"))
            .fragment("source", source)
            .fragment("kind", kind)
            .fragment("digest", digest)
            .fragment("is_wrong", is_wrong)
            .fragment("removed", removed)
            .fragment("also", if is_restored { r#", "archivedAt""# } else { "" })
            .bind("month", &self.month, Type::TEXT)
            .bind("sequence", &self.chain.sequence, Type::INT4)
            .bind("run", &self.run, Type::UUID)
            .bind("previous", &self.chain.digest, Type::BYTEA)
            .bind("archived_after", &self.archived_after, Type::TIMESTAMP)
            .bind("archived_at", &self.archived_at, Type::TIMESTAMP)
            .bind("columns", &self.columns, Type::TEXT_ARRAY)
    }
}

/// SQL for the digest of a row of [`RowForm::hashed_columns`].
const ROW_DIGEST: &str = "sha256(convert_to(content_hash || rest, 'UTF8'))";

/// SQL that digests `rows`, which have createdAt, id, ledger and digest.
pub(super) fn digest_rows(rows: &str) -> String {
    Statement::new(include_str!("sql/digest_rows.sql")).fragment("rows", rows).text()
}

/// SQL that digests `rows` that left a seal, which have archivedAt, id, createdAt and digest.
pub(super) fn digest_removals(rows: &str) -> String {
    format!(
        r#"SELECT sha256(string_agg(archive_removal_digest("archivedAt", id::text, "createdAt", digest), ''
               ORDER BY "archivedAt", id::text COLLATE "C")) FROM {rows}"#
    )
}

/// The forms that the rows of one month were sealed in, each up to an "archivedAt", oldest first.
#[derive(Debug)]
pub(crate) struct SealedForms(Vec<(NaiveDateTime, RowForm)>);

impl SealedForms {
    /// SQL for what the seal of rows that leave is computed from: each row's digest is the one that it was sealed with.
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
            r#"SELECT "archivedAt" AS until, columns, "presentColumns"
               FROM (
                   SELECT sequence, "archivedAt", columns, "presentColumns",
                          lead(ROW(columns, "presentColumns")) OVER (ORDER BY sequence) AS next
                   FROM "ArchiveSeal" WHERE month = $1 AND kind <> 'restored'
               ) seal
               WHERE ROW(columns, "presentColumns") IS DISTINCT FROM next ORDER BY sequence"#,
            &[(&month.to_string(), Type::TEXT)],
        )
        .await?;
    let parse = |row: &Row| {
        Ok((row.try_get("until")?, RowForm::renamed(row.try_get("columns")?, row.try_get("presentColumns")?)))
    };
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

/// The oldest month that has a partition and no seals, if there is one: somebody has dropped them.
pub(crate) async fn find_unsealed_month(client: &impl GenericClient) -> Result<Option<Month>> {
    let row = client
        .query_typed_opt(
            r#"SELECT month
               FROM (
                   SELECT replace(right(p.relname, 7), '_', '-') AS month
                   FROM pg_inherits i
                   JOIN pg_class p ON p.oid = i.inhrelid
                   WHERE i.inhparent = '"StreamArchive"'::regclass AND p.relname ~ '^StreamArchive_[0-9]{4}_[0-9]{2}$'
               ) partition
               WHERE NOT EXISTS (SELECT FROM "ArchiveMonth" m WHERE m.month = partition.month)
               ORDER BY month LIMIT 1"#,
            &[],
        )
        .await?;
    row.map(|row| decode(&row, "month")).transpose()
}

/// Seals all rows of `month`, which has no seals. Returns how many they are.
pub(crate) async fn seal_month(client: &impl GenericClient, month: Month) -> Result<u64> {
    let (chain, form) = (lock_chain(client, month).await?, RowForm::load(client).await?);
    let seal = Seal::adopting(&chain, &form);
    let statement = Statement::new(include_str!("sql/seal_month.sql"))
        .fragment("partition", partition_name(month))
        .fragment("proof_columns", format!(r#"{}, "archivedAt""#, form.hashed_columns("")))
        .fragment("archived_at", r#"(SELECT max("archivedAt") FROM unsealed)"#);
    let row = seal.put_into(statement, "unsealed").query_one(client).await?;
    advance_chain(client, month).await?;
    Ok(row.try_get::<_, i64>("rows")?.unsigned_abs())
}
