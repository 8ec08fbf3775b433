//! Installs Debian packages.

use std::io::{self, IsTerminal};
use std::process::Command;

use anyhow::{Result, bail};

use crate::emulator::QEMU;
use crate::process;
use crate::toolchain::TARGET;

/// Installs Debian's packages, or says what a person has to do.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if process::probe("apt-get", &["--version"]).is_none() {
        let brew = if cfg!(target_os = "macos") { " (here: `brew install qemu`)" } else { "" };
        bail!(
            "this system has no apt-get. Needed are Debian's packages {list}, or what gives the same: \
             the target {TARGET} of rustup, {QEMU} and Python 3 from your system's packages{brew}"
        );
    }
    let root = process::probe("id", &["-u"]).is_some_and(|id| id.trim() == "0");
    if !root && process::probe("sudo", &["--version"]).is_none() {
        bail!("installing packages needs root and there is no sudo; as root: apt-get install {list}");
    }
    let apt = |arguments: &[&str]| {
        let mut words = if root { vec![] } else { vec!["sudo"] };
        words.extend(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        words.extend(arguments);
        process::run(Command::new(words[0]).args(&words[1..]))
    };
    // A list that is out of date names packages that are gone.
    apt(&["update", "--quiet"])?;
    let mut install = vec!["install", "--quiet", "--no-install-recommends"];
    // apt asks by itself where more is to be installed than named, or something removed.
    if !io::stdin().is_terminal() {
        install.push("--yes");
    }
    apt(&[&install, packages].concat())
}
