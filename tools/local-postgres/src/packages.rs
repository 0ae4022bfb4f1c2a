use std::io::IsTerminal;
use std::process::Command;

use nix::unistd::Uid;

use crate::{Error, Result, last_lines};

/// Installs a package of the distribution with apt-get, through sudo for an ordinary user. `false` where there is no
/// apt-get, or no right to use it.
///
/// # Errors
///
/// [`Error::Program`] when the installation fails.
pub fn install_package(name: &str) -> Result<bool> {
    let root = Uid::effective().is_root();
    if which::which("apt-get").is_err() || !root && which::which("sudo").is_err() {
        return Ok(false);
    }
    tracing::info!("installing the distribution's package {name}");
    apt_get(root, &["update"])?;
    apt_get(root, &["install", "-y", "--no-install-recommends", name])?;
    Ok(true)
}

fn apt_get(root: bool, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(if root { "env" } else { "sudo" });
    if !root && !std::io::stdin().is_terminal() {
        // Nobody is there to type a password.
        command.arg("-n");
    }
    if !root {
        command.arg("env");
    }
    // Another installation may be under way on a machine that has just come up.
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    let failed = |output: String| Error::Program { program: format!("apt-get {}", arguments.join(" ")), output };
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    // A third-party list that cannot be reached makes `update` fail, though the package may be had all the same.
    if output.status.success() || arguments == ["update"] {
        return Ok(());
    }
    Err(failed(last_lines(&output.stderr)))
}
