use local_postgres::Server;

use crate::{Result, data};

/// Linux counts a process's time in hundredths of a second for whoever reads it.
const TICKS_PER_SECOND: f64 = 100.0;

/// All processes of a server: backends, workers, checkpointer, and so on.
#[derive(Clone, Copy)]
pub(crate) struct Processes {
    postmaster: u64,
}

impl Processes {
    pub(crate) async fn of(server: &Server) -> Result<Self> {
        let client = data::connect(&server.url("postgres")).await?;
        let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
        let backend = Stat::read(&backend.to_string()).ok_or("the server's processes are not on this machine")?;
        Ok(Self { postmaster: backend.parent })
    }

    /// Seconds of processor time that they have had so far, with those that have ended.
    pub(crate) fn seconds(self) -> Result<f64> {
        loop {
            let before = self.read_postmaster()?;
            let mut ticks = before.own + before.ended_children;
            for entry in std::fs::read_dir("/proc")? {
                // Most of it is no process, and a process may end meanwhile.
                let stat = entry?.file_name().to_str().and_then(Stat::read);
                ticks += stat.filter(|stat| stat.parent == self.postmaster).map_or(0, |stat| stat.own);
            }
            // Else a child has ended, whose time may be in neither or in both.
            if self.read_postmaster()?.ended_children == before.ended_children {
                #[expect(clippy::cast_precision_loss, reason = "a time needs no more")]
                return Ok(ticks as f64 / TICKS_PER_SECOND);
            }
        }
    }

    fn read_postmaster(self) -> Result<Stat> {
        Stat::read(&self.postmaster.to_string()).ok_or_else(|| "the server is gone".into())
    }
}

/// Of a process's `/proc/PID/stat`; times in ticks of user and system together.
struct Stat {
    parent: u64,
    own: u64,
    /// Of children that it has waited for.
    ended_children: u64,
}

impl Stat {
    fn read(process: &str) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name before may contain spaces and brackets.
        let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().map(|field| field.parse().ok()).collect();
        let field = |index: usize| fields.get(index).copied().flatten();
        Some(Self { parent: field(1)?, own: field(11)? + field(12)?, ended_children: field(13)? + field(14)? })
    }
}
