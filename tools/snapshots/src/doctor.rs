use std::process::ExitCode;

use serde::Serialize;
use snapshot_service::{FindingEffect, HostFinding};

use crate::Result;
use crate::operate::open;
use crate::output::Output;

/// What `doctor` says.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    verdict: &'a str,
    refuses_snapshots: bool,
    refuses_archive: bool,
    findings: &'a [HostFinding],
}

/// Looks at the host's database and says what of it maintenance cannot work with.
pub(crate) async fn doctor(output: Output) -> Result<ExitCode> {
    let (_database, service) = open("doctor").await?;
    let findings = service.inspect_host().await?;
    let refuses = |of: fn(FindingEffect) -> bool| findings.iter().any(|finding| of(finding.effect));
    let refuses_snapshots = refuses(FindingEffect::refuses_snapshots);
    let refuses_archive = refuses(FindingEffect::refuses_archive);
    let verdict = verdict(refuses_snapshots, refuses_archive, findings.len());
    let report = Report { verdict: &verdict, refuses_snapshots, refuses_archive, findings: &findings };
    output.print(&report, || {
        let mut lines = list(&findings);
        lines.push(verdict.clone());
        lines.join("\n")
    })?;
    Ok(if refuses_snapshots || refuses_archive { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn verdict(refuses_snapshots: bool, refuses_archive: bool, findings: usize) -> String {
    match (refuses_snapshots, refuses_archive, findings) {
        (true, true, _) => "neither snapshots nor archiving can run: do what the refusals say".into(),
        (true, false, _) => "snapshots cannot be taken: do what the refusals say".into(),
        (false, true, _) => "snapshots can be taken, but nothing is archived: do what the refusals say".into(),
        (false, false, 0) => "all is well".into(),
        (false, false, 1) => "snapshots and archiving can run; 1 finding to know of".into(),
        (false, false, findings) => format!("snapshots and archiving can run; {findings} findings to know of"),
    }
}

/// The findings as lines: what follows, the code and the object in columns, and below what is so and what to do. None where all
/// is well.
fn list(findings: &[HostFinding]) -> Vec<String> {
    if findings.is_empty() {
        return Vec::new();
    }
    let rows = findings.iter().map(|found| [effect(found.effect), &found.code, &found.object]);
    let rows: Vec<[&str; 3]> = std::iter::once(["EFFECT", "CODE", "OBJECT"]).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (effects, codes) = (width(0), width(1));
    let row = |[effect, code, object]: &[&str; 3]| format!("{effect:effects$}  {code:codes$}  {object}");
    let mut lines = vec![row(&rows[0])];
    for (columns, found) in rows[1..].iter().zip(findings) {
        lines.push(row(columns));
        lines.push(format!("    {}", found.message));
        lines.extend(found.cure.as_ref().map(|cure| format!("    cure: {cure}")));
    }
    lines.push(String::new());
    lines
}

fn effect(effect: FindingEffect) -> &'static str {
    match effect {
        FindingEffect::RefusesArchive => "refuses archiving",
        FindingEffect::RefusesBoth => "refuses both",
        FindingEffect::Holds => "holds logs",
        FindingEffect::Warns => "warning",
    }
}
