use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Uid, User};

use crate::{Result, at};

/// Whom the server runs as. PostgreSQL refuses to run as root.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Account {
    /// The process's own user.
    Own,
    /// An unprivileged user, because the process's own is root.
    Other { uid: u32, gid: u32 },
}

impl Account {
    /// The account for a server whose data is or will be in `data`: that of its owner, so that data made by an ordinary
    /// user still works as root; for new data `postgres`, else `nobody`.
    pub(crate) fn for_data(data: &Path) -> Self {
        if !Uid::effective().is_root() {
            return Self::Own;
        }
        if let Ok(owner) = data.metadata()
            && owner.uid() != 0
        {
            return Self::Other { uid: owner.uid(), gid: owner.gid() };
        }
        let user = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
        // 65534 is nobody on every Linux.
        user.map_or(Self::Other { uid: 65534, gid: 65534 }, |user| Self::Other {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        })
    }

    /// Gives `path` to the account.
    pub(crate) fn own(self, path: &Path) -> Result<()> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid } => chown(path, Some(uid), Some(gid)).map_err(at(path)),
        }
    }

    /// Whether the account can get to `folder`, as far as the permissions of the folders above it tell.
    pub(crate) fn can_reach(self, folder: &Path) -> bool {
        let open_to_all = |folder: &Path| folder.metadata().is_ok_and(|found| found.permissions().mode() & 0o001 != 0);
        matches!(self, Self::Own) || folder.ancestors().skip(1).all(open_to_all)
    }

    /// A command that runs `program` as the account, apart from the terminal's Ctrl-C and the caller's PG* variables.
    pub(crate) fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        command.current_dir("/").process_group(0);
        if let Self::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
        command
    }
}
