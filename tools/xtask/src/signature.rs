//! Signs networks for the checks, and checks an update on the emulated board.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::case::{Case, Source, Tool};
use crate::firmware::Build;
use crate::report::Report;
use crate::toolchain::Toolchain;
use crate::{emulator, paths, process};

impl Case {
    /// The same network, signed.
    pub(crate) fn signed(&self, tool: &Tool, sequence: u32) -> Result<Case> {
        let (private, public) = keys(tool)?;
        let blob = self.blob.with_extension("signed.skip");
        let mut sign = tool.command("sign");
        sign.arg(&self.blob).arg("--key").arg(private).arg("--output").arg(&blob);
        process::output(sign.args(["--sequence", &sequence.to_string()]))?;
        Ok(Case { name: format!("{}-signed", self.name), blob, key: Some(public), ..self.clone() })
    }
}

/// The private and the public key of the checks, created if missing.
fn keys(tool: &Tool) -> Result<(PathBuf, PathBuf)> {
    let output = paths::output();
    fs::create_dir_all(&output).with_context(|| format!("creating {}", output.display()))?;
    let private = output.join("bench.pem");
    let public = private.with_extension("pub");
    if !private.is_file() || !public.is_file() {
        for path in [&private, &public].into_iter().filter(|path| path.exists()) {
            fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
        }
        process::output(tool.command("keygen").arg(&private))?;
    }
    Ok((private, public))
}

/// Updates the digits network on the emulated board. After a power failure or with a forged image, the old network
/// runs; after a complete update, the new one. The scores must equal the host's, bit for bit.
pub(crate) fn check_update(tool: &Tool, digits: &Case, toolchain: &Toolchain) -> Result<String> {
    let source = Source {
        name: "digits-update",
        network: paths::models().join("digits.toml"),
        arguments: &["--calibration-images", "10"],
        calibration: "digits-calibration.npz",
        pictures: "digits-test.npz",
        raw: "digit.raw",
        limit: Some(1),
    };
    let (old, new) = (digits.signed(tool, 1)?, Case::make(tool, &source)?.signed(tool, 2)?);
    let arena_bytes_rows = old.facts.arena_bytes_rows.max(new.facts.arena_bytes_rows);
    let build = Build { update: Some(&new), arena_bytes_rows, ..Build::emulated("update", &old) };
    let report = Report::new(emulator::run(&build.run(toolchain)?, |_| {})?.succeeded()?);
    let [old, new] = [&old, &new].map(|case| Ok::<_, anyhow::Error>(case.on_host()?.scores.swap_remove(0)));
    let (old, new) = (old?, new?);
    ensure!(old != new, "both networks have the same scores, so the check cannot tell them apart");
    for (moment, slot, sequence, scores) in
        [("factory", 0, 1, &old), ("torn", 0, 1, &old), ("forged", 0, 1, &old), ("updated", 1, 2, &new)]
    {
        let (ran, expected) = (report.text(moment)?, format!("{slot} {sequence} {scores}"));
        ensure!(
            ran == expected,
            "{moment}: slot, sequence number and scores differ:\nboard    {ran}\nexpected {expected}"
        );
    }
    Ok("the old network runs after an interrupted and a forged update, the new one after a complete update"
        .into())
}
