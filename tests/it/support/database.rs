use std::sync::atomic::{AtomicU32, Ordering};

use chrono::Utc;
use local_postgres::{Options, Server};
use snapshot_service::database::{Pool, connect_pool, migrate};
use snapshot_service::{Deadline, Settings, SnapshotService, VerificationRequest};
use tokio::sync::OnceCell;

pub(crate) const HOST_SCHEMA: &str = include_str!("../../../tools/snapshots/src/host-schema.sql");

/// Names of the databases that the tests' own are cloned from.
const HOST_TEMPLATE: &str = "template_host";
const MIGRATED_TEMPLATE: &str = "template_migrated";

/// The server of this test run; it goes with the process.
static SERVER: OnceCell<Server> = OnceCell::const_new();
static NEXT_DATABASE: AtomicU32 = AtomicU32::new(1);

/// A database of one test's own, dropped after it.
pub(crate) struct TestDatabase {
    pub(crate) url: String,
    /// Its sessions know no schema but the host's: what the service needs it sets itself.
    pub(crate) pool: Pool,
    /// For the tests' own statements, which find the service's tables as well as the host's.
    direct: Pool,
    /// Of the tests' own server; it is dropped with this.
    name: Option<String>,
}

impl TestDatabase {
    /// With the host's tables and the service's.
    pub(crate) async fn migrated() -> Self {
        Self::create(MIGRATED_TEMPLATE).await
    }

    /// With the host's tables only.
    pub(crate) async fn of_host() -> Self {
        Self::create(HOST_TEMPLATE).await
    }

    /// With nothing, as PostgreSQL itself makes one.
    pub(crate) async fn empty() -> Self {
        Self::create("template0").await
    }

    async fn create(template: &str) -> Self {
        let server = server().await;
        let name = format!("test_{}", NEXT_DATABASE.fetch_add(1, Ordering::Relaxed));
        execute(&server.url("postgres"), &format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        let url = server.url(&name);
        Self::of(url, Some(name)).await
    }

    /// One on another server, which the test looks after.
    pub(crate) async fn adopt(url: String) -> Self {
        Self::of(url, None).await
    }

    async fn of(url: String, name: Option<String>) -> Self {
        let separator = if url.contains('?') { '&' } else { '?' };
        let direct = format!("{url}{separator}options=-c%20search_path%3Dpublic%2Csnapshot_service");
        Self { pool: pool(&url).await, direct: pool(&direct).await, url, name }
    }

    /// The same, with the host's tables, which are made.
    pub(crate) async fn adopt_host(url: String) -> Self {
        let database = Self::adopt(url).await;
        database.execute(HOST_SCHEMA).await;
        database
    }

    /// Its URL, taken apart.
    pub(crate) fn config(&self) -> tokio_postgres::Config {
        self.url.parse().unwrap()
    }

    /// Adds the service's tables.
    pub(crate) async fn migrate(&self) {
        migrate(&self.pool).await.unwrap();
    }

    pub(crate) fn service(&self) -> SnapshotService {
        self.service_with_batches_of(20_000)
    }

    pub(crate) fn service_with_batches_of(&self, batch_rows: u32) -> SnapshotService {
        self.service_with(Settings { batch_rows, ..Settings::default() })
    }

    pub(crate) fn service_with(&self, settings: Settings) -> SnapshotService {
        SnapshotService::new(self.pool.clone(), settings)
    }

    /// A connection that is alive: tests cut them.
    pub(crate) async fn client(
        &self,
    ) -> impl std::ops::DerefMut<Target = impl std::ops::DerefMut<Target = tokio_postgres::Client>> {
        loop {
            let client = self.direct.get().await.unwrap();
            if client.simple_query("").await.is_ok() {
                return client;
            }
        }
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.client().await.batch_execute(sql).await.unwrap();
    }

    /// The one value that `sql` selects.
    pub(crate) async fn value<T: for<'a> tokio_postgres::types::FromSql<'a>>(&self, sql: &str) -> T {
        self.client().await.query_one(sql, &[]).await.unwrap().get(0)
    }

    pub(crate) async fn count(&self, from: &str) -> i64 {
        self.value(&format!("SELECT count(*) FROM {from}")).await
    }

    /// Adds a stream: `Stream.id`, the contract-level id, and its `amount`.
    pub(crate) async fn insert_stream(&self, id: &str, contract_id: Option<&str>, amount: &str) {
        let sql = r#"INSERT INTO "Stream" (id, "streamId", "txHash", sender, receiver, "tokenAddress", amount, duration)
                     VALUES ($1, $2, 'tx-' || $1, 'GSENDER', 'GRECEIVER', 'CTOKEN', $3, 100)"#;
        self.client().await.execute(sql, &[&id, &contract_id, &amount]).await.unwrap();
    }

    /// Adds an event without hashes, created at `created_at` (UTC).
    pub(crate) async fn insert_event(&self, id: &str, contract_id: &str, created_at: &str) {
        let sql = r#"INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", sender, amount, metadata, "createdAt")
                     VALUES ($1, 'withdraw', $2, 'tx-' || $1, 7, 'then', 'GSENDER', 9007199254740993, '{"a":1}', $3::text::timestamp)"#;
        self.client().await.execute(sql, &[&id, &contract_id, &created_at]).await.unwrap();
    }

    /// Adds `rows` events `e000001`, ... of stream `42`, one a minute from `start` (UTC) on.
    pub(crate) async fn insert_events(&self, rows: u32, start: &str) {
        self.execute(&format!(
            r#"INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", "eventIndex", ledger, "ledgerClosedAt", amount, metadata, "createdAt")
               SELECT 'e' || lpad(i::text, 6, '0'), 'withdraw', '42', 'tx-' || i / 3, i % 3, i, 'then', i, repeat('m', i % 50),
                      timestamp '{start}' + i * interval '1 minute'
               FROM generate_series(1, {rows}) i"#
        ))
        .await;
    }

    /// Adds `rows` events `e0-1`, ... of stream `42` to each of `months` months from `first` (its first day) on.
    pub(crate) async fn insert_months(&self, first: &str, months: u32, rows: u32) {
        self.execute(&format!(
            r#"INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", "createdAt")
               SELECT 'e' || month || '-' || i, 'withdraw', '42', 't' || month || '-' || i, i, 'then',
                      timestamp '{first}' + (month || ' months')::interval + i * interval '1 hour'
               FROM generate_series(0, {months} - 1) month, generate_series(1, {rows}) i"#
        ))
        .await;
    }

    /// Makes as if each snapshot had been taken when its run started.
    pub(crate) async fn stop_the_clock(&self) {
        self.execute(r#"UPDATE "StreamSnapshot" SET "createdAt" = date_trunc('minute', "createdAt")"#).await;
    }

    /// Remembers every event there is, for [`TestDatabase::assert_nothing_lost_or_doubled`].
    pub(crate) async fn remember_events(&self) {
        self.execute(r#"CREATE TABLE remembered AS SELECT id, row_to_json(e.*)::text AS event FROM "EventLog" e"#)
            .await;
    }

    /// `SELECT id, event` from both tables: each row as the text that it had in `EventLog`.
    pub(crate) async fn all_events_sql(&self) -> String {
        let columns: String = self
            .value(
                r#"SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
                   WHERE attrelid = '"EventLog"'::regclass AND attnum > 0 AND NOT attisdropped"#,
            )
            .await;
        format!(
            r#"SELECT id, row_to_json(e.*)::text AS event FROM "EventLog" e
               UNION ALL SELECT id, row_to_json(a.*)::text FROM (SELECT {columns} FROM snapshot_service."StreamArchive") a"#
        )
    }

    /// Checks that each remembered event is in exactly one of the two tables, byte for byte, and that nothing else is; and
    /// that the archive is what its ledger says.
    pub(crate) async fn assert_nothing_lost_or_doubled(&self) {
        let present = self.all_events_sql().await;
        let wrong: Vec<String> = self
            .value(&format!(
                "WITH counted AS (
                       SELECT id, count(*) AS copies, min(event) AS event FROM ({present}) present GROUP BY id
                   )
                   SELECT array_agg(COALESCE(r.id, c.id) || ': ' || COALESCE(c.copies, 0) || ' copies')
                   FROM remembered r FULL JOIN counted c USING (id)
                   WHERE c.copies IS DISTINCT FROM 1 OR r.event IS DISTINCT FROM c.event
                   HAVING count(*) > 0 UNION ALL SELECT '{{}}' LIMIT 1"
            ))
            .await;
        assert!(wrong.is_empty(), "lost, doubled or altered: {wrong:?}");
        self.assert_seals_agree().await;
    }

    /// Checks that the archive is what its ledger says, of rows that came and of rows that left.
    pub(crate) async fn assert_seals_agree(&self) {
        let everything = VerificationRequest::default();
        let verification = self.service().verify_archive(everything, Utc::now(), &Deadline::never()).await.unwrap();
        // Events that tests make up may have any hashes: these are findings.
        assert_eq!(verification.break_count, 0, "{:?}", verification.breaks);
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Some(name) = self.name.take() else { return };
        let url = SERVER.get().unwrap().url("postgres");
        // In a thread of its own, because this one may be driving the test's runtime.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(execute(&url, &format!("DROP DATABASE {name} WITH (FORCE)")));
        });
        dropped.join().unwrap();
    }
}

async fn server() -> &'static Server {
    let start = || async {
        let server =
            tokio::task::spawn_blocking(|| Server::start_ephemeral(&Options::default())).await.unwrap().unwrap();
        let postgres = server.url("postgres");
        execute(&postgres, &format!("CREATE DATABASE {HOST_TEMPLATE}")).await;
        execute(&server.url(HOST_TEMPLATE), HOST_SCHEMA).await;
        execute(&postgres, &format!("CREATE DATABASE {MIGRATED_TEMPLATE} TEMPLATE {HOST_TEMPLATE}")).await;
        let migrated = pool(&server.url(MIGRATED_TEMPLATE)).await;
        migrate(&migrated).await.unwrap();
        // Nobody may be connected to a database that is cloned.
        migrated.close();
        execute(&postgres, &format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ('{MIGRATED_TEMPLATE}', '{HOST_TEMPLATE}')"
        ))
        .await;
        server
    };
    SERVER.get_or_init(start).await
}

async fn pool(url: &str) -> Pool {
    connect_pool(&url.parse().unwrap(), "test", 8).await.unwrap()
}

async fn execute(url: &str, sql: &str) {
    pool(url).await.get().await.unwrap().batch_execute(sql).await.unwrap();
}
