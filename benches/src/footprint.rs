use std::path::Path;
use std::time::{Duration, Instant};

use local_postgres::Server;
use runtime_api::Function;
use snapshot_service::{Deadline, Settings, SnapshotService, Trigger, VerificationRequest};

use crate::data::{self, NOW};
use crate::functions::{binary, size};
use crate::pairs::Spread;
use crate::{Result, report};

const STARTS: usize = 20;
/// What the sample events ask for.
const SAMPLE_STREAM: &str = r#"UPDATE "Stream" SET "streamId" = '42' WHERE id = (SELECT min(id) FROM "Stream")"#;
const SAMPLE_RUN: &str = r#"UPDATE "MaintenanceRun" SET id = '6c1a9be4-ae06-49fc-9c4f-1a5e6f0d8a5e'"#;

/// What each function weighs, how fast it starts and answers its sample event, and the memory that it has then had, as
/// a table.
pub(crate) async fn measure(server: &Server) -> Result<()> {
    data::create(server, "footprint", data::HOST_SCHEMA, 1_000, 100_000).await?;
    data::execute(server, "footprint", SAMPLE_STREAM).await?;
    let pool = data::pool(server, "footprint", 8).await?;
    let service = SnapshotService::new(pool.clone(), Settings::default());
    service.run_maintenance(Trigger::Cli.request(), NOW.parse()?, &Deadline::never()).await?;
    service.verify_archive(VerificationRequest::default(), NOW.parse()?, &Deadline::never()).await?;
    pool.close();
    data::execute(server, "footprint", SAMPLE_RUN).await?;

    let events = Path::new(env!("CARGO_MANIFEST_DIR")).join("../events");
    let mut names: Vec<String> = Vec::new();
    for event in std::fs::read_dir(&events)? {
        names.extend(event?.path().file_stem().and_then(|stem| stem.to_str()).map(String::from));
    }
    names.sort();
    report::say("| function | size | to the first poll | to the first answer | peak memory |\n|---|---|---|---|---|");
    for name in names {
        let event = std::fs::read_to_string(events.join(&name).with_extension("json"))?;
        let line = measure_function(&server.url("footprint"), &name, &event).await?;
        report::say(&line);
    }
    Ok(())
}

async fn measure_function(url: &str, name: &str, event: &str) -> Result<String> {
    let (mut polls, mut answers, mut peak) = (Vec::new(), Vec::new(), 0);
    for _ in 0..STARTS {
        let started = Instant::now();
        let mut function = Function::start(binary(name), name, &[("DATABASE_URL", url)]).await;
        let outcome = function.invoke(event).await;
        answers.push(started.elapsed().as_secs_f64());
        polls.push(function.time_to_first_poll().await.as_secs_f64());
        peak = peak.max(function.peak_memory_kb());
        let status = &outcome.payload["statusCode"];
        if outcome.failed || !(status.is_null() || *status == 200) {
            return Err(format!("{name} answered {outcome:?}").into());
        }
    }
    let [poll, answer] = [polls, answers].map(|times| Duration::from_secs_f64(Spread::of(times).median));
    let size = size(name)?;
    Ok(format!("| `{name}` | {size:.1} MB | {poll:.1?} | {answer:.1?} | {:.1} MB |", report::megabytes(peak)))
}
