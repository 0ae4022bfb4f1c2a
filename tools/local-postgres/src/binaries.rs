use std::path::{Path, PathBuf};
use std::process::Command;

use crate::packages::install_package;
use crate::{Error, Result};

/// Oldest major version that the service works with.
const MIN_VERSION: u32 = 14;

/// Where distributions put the server's binaries; `*` is a version.
const USUAL_FOLDERS: [(&str, &str, &str); 7] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/usr/local", "pgsql", "bin"),
    ("/usr", "bin", ""),
];

/// A folder with `postgres`, `initdb` and `pg_ctl`, of version 14 or newer.
#[derive(Debug, Clone)]
pub struct Binaries {
    folder: PathBuf,
    /// Their major version.
    version: u32,
}

impl Binaries {
    /// Looks in `PG_BIN`, `PATH`, `pg_config --bindir` and the distributions' usual folders, in this order.
    ///
    /// # Errors
    ///
    /// [`Error::NoBinaries`]; also when `PG_BIN` is set to something else.
    pub fn find() -> Result<Self> {
        if let Some(folder) = pg_bin() {
            let wrong = format!("PG_BIN is {}, which has no such postgres, initdb and pg_ctl", folder.display());
            return Self::in_folder(&folder).ok_or(Error::NoBinaries(wrong));
        }
        let on_path =
            std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
        let configured = Command::new("pg_config").arg("--bindir").output().ok();
        let configured = configured.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
        let first = on_path.chain(configured).find_map(|folder| Self::in_folder(&folder));
        let newest =
            || usual_folders().iter().filter_map(|folder| Self::in_folder(folder)).max_by_key(|found| found.version);
        first.or_else(newest).ok_or_else(|| {
            Error::NoBinaries(
                "install it (Debian, Ubuntu: apt-get install postgresql) or set PG_BIN to its folder".into(),
            )
        })
    }

    /// As [`Binaries::find`]; where there are none, installs the distribution's package with apt-get, through sudo for
    /// an ordinary user.
    ///
    /// # Errors
    ///
    /// [`Error::NoBinaries`], saying what to install; [`Error::Program`] when the installation fails.
    pub fn find_or_install() -> Result<Self> {
        Self::find().or_else(|missing| {
            if pg_bin().is_some() || !install_package("postgresql")? {
                return Err(missing);
            }
            Self::find()
        })
    }

    /// The path of one of them.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether everybody may create tables in the schema `public` of a new database.
    pub(crate) fn leave_public_open(&self) -> bool {
        self.version < 15
    }

    /// The binaries in `folder`, when they are whole and new enough.
    fn in_folder(folder: &Path) -> Option<Self> {
        // The folder's real path: a symlink on PATH would hide the server's libraries beside it.
        let folder = folder.join("postgres").canonicalize().ok()?.parent()?.to_owned();
        let whole = ["initdb", "pg_ctl"].iter().all(|name| folder.join(name).is_file());
        let output = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
        let version = major_version(&String::from_utf8_lossy(&output.stdout))?;
        (whole && version >= MIN_VERSION).then_some(Self { folder, version })
    }
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` is 15; `postgres (PostgreSQL) 19beta1` is 19.
fn major_version(text: &str) -> Option<u32> {
    let version = text.split("(PostgreSQL)").nth(1)?.trim_start();
    let digits = version.find(|character: char| !character.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

fn pg_bin() -> Option<PathBuf> {
    std::env::var_os("PG_BIN").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

fn usual_folders() -> Vec<PathBuf> {
    let folders = USUAL_FOLDERS.iter().flat_map(|(parent, prefix, below)| {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .map(|entry| entry.path().join(below))
            .collect::<Vec<_>>()
    });
    folders.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_every_form() {
        for (text, version) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(15)),
            ("postgres (PostgreSQL) 14.1", Some(14)),
            ("postgres (PostgreSQL) 19beta1", Some(19)),
            ("postgres (PostgreSQL) 9.6.24", Some(9)),
            ("something else", None),
        ] {
            assert_eq!(major_version(text), version, "{text}");
        }
    }
}
