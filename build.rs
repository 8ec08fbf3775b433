//! Tells the kernels whether the target's core has the DSP extension.
//!
//! Stable Rust has no `target_feature` for it. Every Cortex-M4 and M7 has it (`thumbv7em`); a Cortex-M33 or M35P
//! may have it, and says so by `--cfg skipstone_dsp -C target-cpu=cortex-m33`. `--cfg skipstone_portable` keeps the
//! portable twins anywhere.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(skipstone_dsp)");
    println!("cargo::rustc-check-cfg=cfg(skipstone_portable)");
    println!("cargo::rustc-check-cfg=cfg(skipstone_v8m)");
    let target = std::env::var("TARGET").unwrap_or_default();
    let portable = std::env::var_os("CARGO_CFG_SKIPSTONE_PORTABLE").is_some();
    if target.starts_with("thumbv7em") && !portable {
        println!("cargo::rustc-cfg=skipstone_dsp");
    }
    if target.starts_with("thumbv8m.main") {
        println!("cargo::rustc-cfg=skipstone_v8m");
    }
}
