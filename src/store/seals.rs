use std::pin::pin;

use chrono::{NaiveDateTime, TimeDelta};
use futures_util::TryStreamExt;
use seal::{Digest, LinkTracker, Places, RowForm, RowHasher, SealHeader, SealedRows, Texts, timestamp};
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use super::decode::decode;
use super::leases::MonthLease;
use super::partitions::partition_name;
use super::row_texts;
use super::statement::Statement;
use crate::error::Result;
use crate::model::{ArchivedMonth, Month};

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

/// The months of the archive, oldest first.
pub(crate) async fn list_archived_months(client: &impl GenericClient) -> Result<Vec<ArchivedMonth>> {
    let parse = |row: &Row| {
        Ok(ArchivedMonth {
            month: decode(row, "month")?,
            // Less than none where somebody altered a seal: `verify` says so.
            rows: row.try_get::<_, i64>("rows")?.try_into().unwrap_or_default(),
            seals: row.try_get::<_, i32>("seals")?.try_into().unwrap_or_default(),
            sealed_at: row.try_get::<_, Option<NaiveDateTime>>("sealed_at")?.map(|time| time.and_utc()),
            digest: row.try_get("digest")?,
        })
    };
    Statement::new(include_str!("sql/list_archived_months.sql")).query(client).await?.iter().map(parse).collect()
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

/// The seal that a batch adds to its month's chain.
#[derive(Debug)]
pub(crate) struct Seal<'a> {
    kind: &'static str,
    run: Option<Uuid>,
    chain: &'a SealChain,
    /// Of the batch's rows; `None` for rows that leave.
    archived_after: Option<NaiveDateTime>,
    archived_at: Option<NaiveDateTime>,
    columns: &'a [String],
}

impl<'a> Seal<'a> {
    /// The seal of a batch of rows that came from `EventLog` and are archived at `archived_at`, in the form `form`.
    pub(crate) fn archiving(chain: &'a SealChain, run: Uuid, archived_at: NaiveDateTime, form: &'a RowForm) -> Self {
        let (archived_after, archived_at) = (chain.archived_after, Some(archived_at));
        Self { kind: "archived", run: Some(run), chain, archived_after, archived_at, columns: form.columns() }
    }

    /// The seal of rows that no run archived, up to `archived_at`: they were copied from the former service's archive.
    fn adopting(chain: &'a SealChain, archived_at: NaiveDateTime, form: &'a RowForm) -> Self {
        let (archived_after, archived_at) = (chain.archived_after, Some(archived_at));
        Self { kind: "adopted", run: None, chain, archived_after, archived_at, columns: form.columns() }
    }

    /// The seal of a batch of rows that go back to `EventLog`.
    pub(crate) fn restoring(chain: &'a SealChain, run: Uuid, form: &'a RowForm) -> Self {
        let (archived_after, archived_at) = (None, None);
        Self { kind: "restored", run: Some(run), chain, archived_after, archived_at, columns: form.columns() }
    }

    /// Adds the seal of `rows`, if there are any, as the next of its month. `unlinked` are the parents that are not among them.
    pub(crate) async fn insert(
        &self,
        client: &impl GenericClient,
        rows: &SealedRows,
        unlinked: &Vec<String>,
    ) -> Result<()> {
        if rows.count() == 0 {
            return Ok(());
        }
        let mut header = SealHeader {
            month: self.chain.month.to_string(),
            sequence: self.chain.sequence,
            kind: self.kind.into(),
            run: self.run.map(|run| run.to_string()),
            archived_after: self.archived_after.map(timestamp),
            archived_at: self.archived_at.map(timestamp),
            columns: self.columns.to_vec(),
            ..SealHeader::default()
        };
        rows.describe(&mut header);
        let digest = header.digest(&self.chain.digest, &rows.digest());
        Statement::new(include_str!("sql/insert_seal.sql"))
            .bind("month", &header.month, Type::TEXT)
            .bind("sequence", &header.sequence, Type::INT4)
            .bind("kind", &header.kind, Type::TEXT)
            .bind("run", &self.run, Type::UUID)
            .bind("rows", &header.rows, Type::INT8)
            .bind("first_created_at", &header.first_created_at, Type::TEXT)
            .bind("first_id", &header.first_id, Type::TEXT)
            .bind("last_created_at", &header.last_created_at, Type::TEXT)
            .bind("last_id", &header.last_id, Type::TEXT)
            .bind("archived_after", &self.archived_after, Type::TIMESTAMP)
            .bind("archived_at", &self.archived_at, Type::TIMESTAMP)
            .bind("min_ledger", &header.min_ledger, Type::INT8)
            .bind("max_ledger", &header.max_ledger, Type::INT8)
            .bind("columns", &header.columns, Type::TEXT_ARRAY)
            .bind("digest", &digest.as_slice(), Type::BYTEA)
            .bind("leaves", &rows.leaves(), Type::BYTEA)
            .bind("unlinked", unlinked, Type::TEXT_ARRAY)
            .execute(client)
            .await?;
        Ok(())
    }
}

/// The forms that the rows of one month were sealed in, each up to an "archivedAt", oldest first.
#[derive(Debug)]
pub(crate) struct SealedForms(Vec<(NaiveDateTime, RowForm)>);

impl SealedForms {
    /// Hashes rows whose texts are those of the columns `selected`, each in the form that it was sealed with.
    pub(crate) fn hashers(&self, selected: &[String]) -> SealedHashers {
        SealedHashers(self.0.iter().map(|(until, form)| (timestamp(*until), RowHasher::new(form, selected))).collect())
    }
}

/// Hashes rows of one month that were sealed in several forms.
#[derive(Debug)]
pub(crate) struct SealedHashers(Vec<(String, RowHasher)>);

impl SealedHashers {
    /// The digest that a row was sealed with which was archived at `archived_at`.
    pub(crate) fn hash(&mut self, archived_at: &str, texts: &Texts<'_>) -> Digest {
        // Times have one length but for their fractions, so that their texts are in their order.
        let last = self.0.len() - 1;
        let place = self.0.iter().position(|(until, _)| archived_at <= until.as_str()).unwrap_or(last);
        self.0[place].1.hash(texts).0
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

/// The order of a seal in list_sealed_rows.sql.
pub(super) const IN_ORDER: &str = "ORDER BY at, key";

/// Where the digest of a row that has left is among the columns of list_sealed_rows.sql, and where its texts begin.
pub(super) const REMOVAL: usize = 0;
pub(super) const FIRST_TEXT: usize = 1;

/// Rows that one seal of rows has which no run archived. Rows of one instant are sealed together, however many they are.
const ADOPTED_ROWS: i64 = 50_000;

/// Whether the month of `chain` has rows that are behind its last seal.
pub(crate) async fn has_unsealed_rows(client: &impl GenericClient, chain: &SealChain) -> Result<bool> {
    Ok(find_unsealed_until(client, chain).await?.is_some())
}

async fn find_unsealed_until(client: &impl GenericClient, chain: &SealChain) -> Result<Option<NaiveDateTime>> {
    let row = Statement::new(include_str!("sql/find_unsealed_until.sql"))
        .fragment("partition", partition_name(chain.month))
        .bind("archived_after", &chain.archived_after, Type::TIMESTAMP)
        .bind("limit", &ADOPTED_ROWS, Type::INT8)
        .query_one(client)
        .await?;
    Ok(row.try_get("until")?)
}

/// Seals the rows of `month` that no seal has yet. Returns how many they are.
pub(crate) async fn seal_unsealed(client: &impl GenericClient, month: Month) -> Result<u64> {
    let form = row_texts::load_form(client).await?;
    let mut sealed = 0;
    loop {
        let chain = lock_chain(client, month).await?;
        let Some(until) = find_unsealed_until(client, &chain).await? else { return Ok(sealed) };
        let selected = form.columns();
        let rows = Statement::new(include_str!("sql/list_sealed_rows.sql"))
            .fragment("texts", row_texts::texts_of(selected, "a."))
            .fragment("names", row_texts::names_of(selected.len()))
            .fragment("partition", partition_name(month))
            .fragment("removed", "")
            .fragment("order", IN_ORDER)
            .bind("archived_after", &chain.archived_after.map(timestamp), Type::TEXT)
            .bind("archived_at", &timestamp(until), Type::TEXT)
            .query_stream(client)
            .await?;
        let mut rows = pin!(rows);
        let (mut hasher, places) = (RowHasher::new(&form, selected), Places::new(selected));
        let (mut in_order, mut links) = (SealedRows::default(), LinkTracker::default());
        while let Some(row) = rows.try_next().await? {
            let texts = row_texts::read_texts(&row, FIRST_TEXT)?;
            in_order.push(&places.sealed_row(&texts, hasher.hash(&texts).0));
            links.add(places.parent_hash(&texts), places.entry_hash(&texts));
        }
        Seal::adopting(&chain, until, &form).insert(client, &in_order, &links.unlinked()).await?;
        advance_chain(client, month).await?;
        sealed += in_order.count();
    }
}
