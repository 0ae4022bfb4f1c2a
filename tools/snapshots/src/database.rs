use std::path::Path;

use snapshot_service::Config;
use snapshot_service::database::{Pool, connect_pool};

use crate::progress::print_line;
use crate::{Result, demo};

/// Where the private server keeps its data, below the current folder.
const PRIVATE_FOLDER: &str = ".local/postgres";
/// The private server's database.
const PRIVATE_DATABASE: &str = "snapshots";
/// Connections are opened when they are needed: several callers of the API at once, and maintenance's workers.
const POOL_SIZE: usize = 80;

/// The database that the command works on.
pub(crate) struct Database {
    pub(crate) config: Config,
    pub(crate) pool: Pool,
    /// The private server that it is on, which lives as long as this; `None` for `DATABASE_URL`'s.
    pub(crate) private: Option<local_postgres::Server>,
}

/// Opens the database that there is: `DATABASE_URL`'s, or the private one of this folder, and says so. A scheduler that has lost the
/// variable is not to work on a database that nobody knows of.
pub(crate) async fn open(command: &str) -> Result<Database> {
    if !is_named() {
        // Whoever makes a private server makes this folder first.
        if !Path::new(PRIVATE_FOLDER).join("data").exists() {
            return Err("DATABASE_URL is not set, and there is no private database in this folder: set the variable, or run `snapshots serve` \
                        here, which makes a private database with demo data"
                .into());
        }
        print_line(&format!("DATABASE_URL is not set: this is about the private database in {PRIVATE_FOLDER}"));
    }
    open_or_make(command).await
}

fn is_named() -> bool {
    std::env::var("DATABASE_URL").is_ok_and(|url| !url.is_empty())
}

/// Opens the database, or makes a private one, with the host's tables and demo data.
pub(crate) async fn open_with_demo(command: &str) -> Result<Database> {
    let database = open_or_make(command).await?;
    if database.private.is_some() {
        demo::fill_new(&database).await?;
    }
    Ok(database)
}

/// Opens the database, or makes a private one, empty.
pub(crate) async fn open_or_make(command: &str) -> Result<Database> {
    let (config, private) = if is_named() {
        (Config::from_env()?, None)
    } else {
        let server = tokio::task::spawn_blocking(|| {
            tracing::info!("starting a private PostgreSQL with its data in {PRIVATE_FOLDER}");
            local_postgres::Server::start(Path::new(PRIVATE_FOLDER), &local_postgres::Options::default())
        });
        let server = server.await??;
        create_private_database(&server).await?;
        (private_config(&server)?, Some(server))
    };
    let pool = connect_pool(&config.database, command, POOL_SIZE).await?;
    Ok(Database { config, pool, private })
}

/// The environment's settings, on the private server instead of whatever database the environment half-names.
fn private_config(server: &local_postgres::Server) -> Result<Config> {
    let config = Config::from_lookup(|name| match name {
        "DATABASE_URL" => Some(server.url(PRIVATE_DATABASE)),
        "DATABASE_SECRET_ID" => None,
        name if name.starts_with("PG") => None,
        name => std::env::var(name).ok(),
    });
    Ok(config?)
}

async fn create_private_database(server: &local_postgres::Server) -> Result<()> {
    let pool = connect_pool(&server.url("postgres").parse()?, "create-database", 1).await?;
    let client = pool.get().await?;
    // Two commands may start on a new server at once.
    client.batch_execute("SELECT pg_advisory_lock(1)").await?;
    let exists = client.query_opt("SELECT FROM pg_database WHERE datname = $1", &[&PRIVATE_DATABASE]).await?;
    if exists.is_none() {
        client.batch_execute(&format!("CREATE DATABASE {PRIVATE_DATABASE}")).await?;
    }
    // The lock ends with the connection.
    Ok(())
}
