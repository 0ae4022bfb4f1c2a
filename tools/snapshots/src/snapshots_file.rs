use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Error, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// The file that snapshots are written to. It appears when it is whole; one that is there already, because the command was
/// killed after that, must have the same contents.
pub(crate) enum SnapshotsFile {
    New { path: PathBuf, partial: PathBuf, file: BufWriter<File> },
    Existing { path: PathBuf, file: BufReader<File>, line: Vec<u8> },
}

impl SnapshotsFile {
    /// Opens the file at `path` for the rollback `run`, whose name the unfinished file has.
    pub(crate) fn open(path: &Path, run: Uuid) -> io::Result<Self> {
        let path = path.to_owned();
        if path.try_exists().map_err(at(&path))? {
            let file = BufReader::new(File::open(&path).map_err(at(&path))?);
            return Ok(Self::Existing { path, file, line: Vec::new() });
        }
        let mut partial = path.clone().into_os_string();
        partial.push(format!(".{run}.partial"));
        let partial = PathBuf::from(partial);
        let file = BufWriter::new(File::create(&partial).map_err(at(&partial))?);
        Ok(Self::New { path, partial, file })
    }

    /// Writes a line, or checks that the file has it.
    pub(crate) fn write(&mut self, text: &str) -> io::Result<()> {
        match self {
            Self::New { partial, file, .. } => writeln!(file, "{text}").map_err(at(partial)),
            Self::Existing { path, file, line } => {
                line.clear();
                file.read_until(b'\n', line).map_err(at(path))?;
                if line.strip_suffix(b"\n") == Some(text.as_bytes()) { Ok(()) } else { Err(foreign(path)) }
            }
        }
    }

    /// Makes the file appear, safe on the disk, or checks that it has nothing more.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self {
            Self::New { path, partial, file } => {
                let file = file.into_inner().map_err(|error| at(&partial)(error.into_error()))?;
                file.sync_all().map_err(at(&partial))?;
                fs::rename(&partial, &path).map_err(at(&path))?;
                sync_folder(&path)
            }
            Self::Existing { path, mut file, .. } => {
                let rest = file.read(&mut [0]).map_err(at(&path))?;
                if rest == 0 { sync_folder(&path) } else { Err(foreign(&path)) }
            }
        }
    }
}

/// Makes sure that the file is still in its folder after a crash.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))
}

fn foreign(path: &Path) -> Error {
    let message = format!("{} has other contents: move it away, or name another --snapshots-file", path.display());
    Error::new(ErrorKind::AlreadyExists, message)
}

/// An error with the path that it is about.
fn at(path: &Path) -> impl Fn(Error) -> Error {
    move |error| Error::new(error.kind(), format!("{}: {error}", path.display()))
}
