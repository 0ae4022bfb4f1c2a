use std::fs::{self, File, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, Error, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// A file that a rollback writes lines to. It appears when it is whole; one that is there already, because the command was
/// killed after that, must have the same contents.
pub(crate) enum LinesFile {
    New { path: PathBuf, partial: PathBuf, file: BufWriter<File>, is_empty: bool },
    Existing { path: PathBuf, file: BufReader<File>, line: Vec<u8> },
}

impl LinesFile {
    /// Opens the file at `path` for the rollback `run`, whose name the unfinished file has. It is locked: the same command
    /// started twice would write over itself.
    pub(crate) fn open(path: &Path, run: Uuid) -> io::Result<Self> {
        let path = path.to_owned();
        if path.try_exists().map_err(at(&path))? {
            let file = BufReader::new(File::open(&path).map_err(at(&path))?);
            return Ok(Self::Existing { path, file, line: Vec::new() });
        }
        let mut partial = path.clone().into_os_string();
        partial.push(format!(".{run}.partial"));
        let partial = PathBuf::from(partial);
        let file = File::options().write(true).create(true).truncate(false).open(&partial).map_err(at(&partial))?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Error::other(format!("{}: another rollback is writing it", partial.display())),
            TryLockError::Error(error) => at(&partial)(error),
        })?;
        // The one who had it locked may have finished it just now.
        let is_same = |there: fs::Metadata| Ok(there.ino() == file.metadata()?.ino());
        if !fs::metadata(&partial).and_then(is_same).unwrap_or(false) {
            return Err(Error::other(format!("{} was finished by another rollback just now", partial.display())));
        }
        file.set_len(0).map_err(at(&partial))?;
        Ok(Self::New { path, partial, file: BufWriter::new(file), is_empty: true })
    }

    /// Writes a line, or checks that the file has it.
    pub(crate) fn write(&mut self, text: &str) -> io::Result<()> {
        match self {
            Self::New { partial, file, is_empty, .. } => {
                *is_empty = false;
                writeln!(file, "{text}").map_err(at(partial))
            }
            Self::Existing { path, file, line } => {
                line.clear();
                file.read_until(b'\n', line).map_err(at(path))?;
                if line.strip_suffix(b"\n") == Some(text.as_bytes()) { Ok(()) } else { Err(foreign(path)) }
            }
        }
    }

    /// Makes the file appear, safe on the disk, unless it has no line; or checks that it has nothing more.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self {
            Self::New { partial, is_empty: true, .. } => fs::remove_file(&partial).map_err(at(&partial)),
            Self::New { path, partial, file, .. } => {
                let file = file.into_inner().map_err(|error| at(&partial)(error.into_error()))?;
                file.sync_all().map_err(at(&partial))?;
                // Unlike a rename it leaves alone what somebody else has put there meanwhile.
                fs::hard_link(&partial, &path).map_err(|error| match error.kind() {
                    ErrorKind::AlreadyExists => foreign(&path),
                    _ => at(&path)(error),
                })?;
                sync_folder(&path)?;
                fs::remove_file(&partial).map_err(at(&partial))
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
    let message = format!("{} has other contents: move it away, or name another file", path.display());
    Error::new(ErrorKind::AlreadyExists, message)
}

/// An error with the path that it is about.
fn at(path: &Path) -> impl Fn(Error) -> Error {
    move |error| Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_and_neither_overwrites_another_nor_is_written_by_two() -> io::Result<()> {
        let folder = std::env::temp_dir().join(format!("lines-file-{}", Uuid::new_v4()));
        fs::create_dir(&folder)?;
        let (path, run) = (folder.join("lines.jsonl"), Uuid::new_v4());
        let mut file = LinesFile::open(&path, run)?;
        file.write("one")?;
        assert!(
            LinesFile::open(&path, run)
                .is_err_and(|error| error.to_string().contains("another rollback is writing it"))
        );
        assert!(!path.exists());
        fs::write(&path, "of another database\n")?;
        assert!(file.finish().is_err_and(|error| error.to_string().contains("has other contents")));
        assert_eq!(fs::read_to_string(&path)?, "of another database\n");
        fs::remove_file(&path)?;

        // What the first attempt left is written anew.
        let mut file = LinesFile::open(&path, run)?;
        file.write("two")?;
        file.finish()?;
        assert_eq!(fs::read_to_string(&path)?, "two\n");
        let mut file = LinesFile::open(&path, run)?;
        file.write("two")?;
        file.finish()?;

        let empty = folder.join("empty.jsonl");
        LinesFile::open(&empty, run)?.finish()?;
        assert_eq!((path.exists(), fs::read_dir(&folder)?.count()), (true, 1), "nothing else is left");
        fs::remove_dir_all(&folder)
    }
}
