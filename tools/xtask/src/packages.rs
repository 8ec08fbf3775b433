//! Installs Debian packages.

use std::io::{self, IsTerminal};
use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// Installs Debian packages; if it cannot, the error says what to do.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if process::probe("apt-get", &["--version"]).is_none() {
        let brew = if cfg!(target_os = "macos") { " (`brew install qemu`)" } else { "" };
        bail!(
            "this system has no apt-get to install the Debian packages {list}; install their equivalents: Rust \
             targets with rustup, QEMU and Python 3 with your system's package manager{brew}"
        );
    }
    let root = process::probe("id", &["-u"]).is_some_and(|id| id.trim() == "0");
    if !root && process::probe("sudo", &["--version"]).is_none() {
        bail!("installing packages needs root, and there is no sudo; as root, run `apt-get install {list}`");
    }
    let apt = |arguments: &[&str]| {
        let mut words = if root { vec![] } else { vec!["sudo"] };
        words.extend(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        words.extend(arguments);
        process::run(Command::new(words[0]).args(&words[1..]))
    };
    // An outdated list names package versions that no longer exist.
    apt(&["update", "--quiet"])?;
    let mut install = vec!["install", "--quiet", "--no-install-recommends"];
    // On a terminal, apt asks before it installs more than requested or removes something.
    if !io::stdin().is_terminal() {
        install.push("--yes");
    }
    apt(&[&install, packages].concat())
}
