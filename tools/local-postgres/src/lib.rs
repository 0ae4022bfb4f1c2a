//! A private PostgreSQL server made from the machine's own binaries, for tests and for running the service locally.
//!
//! - [`Binaries`] finds PostgreSQL 14 or newer, or installs the distribution's package.
//! - [`Server`] runs a server on a free loopback port. Processes that start a server on the same folder share it; the
//!   last one to end, in whatever way, takes it down.
//! - [`install_package`] is how the former gets what the machine lacks; tests install with it, too.

mod account;
mod binaries;
mod packages;
mod server;

use std::path::PathBuf;

pub use binaries::Binaries;
pub use packages::install_package;
pub use server::{Options, Server};

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No binaries were found, and none could be installed.
    #[error("no PostgreSQL 14 or newer found: {0}")]
    NoBinaries(String),
    /// A program that makes or runs the server failed.
    #[error("{program} failed: {output}")]
    Program {
        /// Its name.
        program: String,
        /// The end of what it said.
        output: String,
    },
    /// A file or folder could not be used.
    #[error("{}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

type Result<T> = std::result::Result<T, Error>;

/// The end of what a program said, as one line.
fn last_lines(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.split_off(lines.len().saturating_sub(5)).join(" | ")
}

/// Attaches the path to an I/O error.
fn at(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    |source| Error::Io { path, source }
}
