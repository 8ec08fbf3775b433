//! Tiny crates that must pass and that must be caught.

use std::collections::BTreeMap;

use super::{LAYERS, Layers, examine};

const LAYERED: Layers =
    Layers { folder: "src", library: "small", order: &["base", "ops", "run", "lib", "main"] };

/// The violations in these files.
fn violations(files: &[(&str, &str)]) -> Vec<String> {
    let sources = files.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
    let mut violations = Vec::new();
    examine(&LAYERED, &sources, &mut violations).unwrap();
    violations
}

#[test]
fn imports_of_lower_modules_pass() {
    let files = [
        ("lib.rs", "mod base; mod ops; pub use ops::Op; pub use base::Shape;"),
        ("base.rs", "pub struct Shape;"),
        ("ops.rs", "use crate::base::Shape; pub struct Op(Shape);"),
    ];
    assert_eq!(violations(&files), [""; 0]);
}

#[test]
fn an_upward_import_is_caught_with_its_line() {
    let files = [
        ("lib.rs", "mod base; mod run;"),
        ("base.rs", "\n\nuse crate::{\n    run::Network,\n};\npub struct Shape(Network);"),
        ("run.rs", "pub struct Network;"),
    ];
    let found = violations(&files);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("src/base.rs:4: `base` imports `run`, which is above it"), "{}", found[0]);
    assert!(found[0].contains("crate::run::Network, defined in src/run.rs"), "{}", found[0]);
}

#[test]
fn upward_paths_are_caught_in_code_macros_and_through_the_root() {
    for body in [
        "fn f() -> crate::run::Network { todo!() }",
        "fn f() { let _ = std::vec![Some(crate::run::Network)]; }",
        "macro_rules! m { () => { $crate::run::Network }; }",
        "fn f() { let _ = super::run::Network; }",
        "use crate::Network; fn f(_: Network) {}",
        "use crate::run as up; fn f(_: up::Network) {}",
        "fn f() { use crate::run; let _ = run::Network; }",
        "use crate::run::*; fn f(_: Network) {}",
        "mod inner { use super::super::run::Network; fn f(_: Network) {} }",
    ] {
        let files = [
            ("lib.rs", "mod base; mod run; pub use run::Network;"),
            ("base.rs", body),
            ("run.rs", "pub struct Network;"),
        ];
        let found = violations(&files);
        assert_eq!(found.len(), 1, "{body}: {found:#?}");
        assert!(found[0].starts_with("src/base.rs:1: `base` imports `run`"), "{body}: {found:#?}");
    }
}

#[test]
fn tests_comments_and_strings_import_nothing() {
    for body in [
        "#[cfg(test)] mod tests { use crate::run::Network; }",
        "#[cfg(any(test, feature = \"self-test\"))] fn f(_: crate::run::Network) {}",
        "//! [`crate::run::Network`]\n/// crate::run::Network\npub struct Shape;",
        "pub const TEXT: &str = \"crate::run::Network\"; // crate::run::Network",
        "pub(in crate::base) struct Shape;",
    ] {
        let files = [("lib.rs", "mod base; mod run;"), ("base.rs", body), ("run.rs", "pub struct Network;")];
        assert_eq!(violations(&files), [""; 0], "{body}");
    }
}

#[test]
fn a_circle_of_two_files_is_caught_with_its_chain() {
    let files = [
        ("lib.rs", "mod ops;"),
        ("ops/mod.rs", "mod conv; mod pool;"),
        ("ops/conv.rs", "use super::pool::Pool; pub struct Conv(Pool);"),
        ("ops/pool.rs", "\npub struct Pool;\nfn f(_: crate::ops::conv::Conv) {}"),
    ];
    let expected = "src: 2 files import each other in a circle
  src/ops/conv.rs:1 imports src/ops/pool.rs: super::pool::Pool
  src/ops/pool.rs:3 imports src/ops/conv.rs: crate::ops::conv::Conv";
    assert_eq!(violations(&files), [expected]);
}

#[test]
fn a_parent_that_only_re_exports_its_children_is_in_no_circle() {
    let files = [
        ("lib.rs", "mod ops;"),
        ("ops/mod.rs", "mod conv; mod window; pub use conv::Conv; pub(crate) use self::window::*;"),
        ("ops/conv.rs", "use super::Window; pub struct Conv(Window);"),
        ("ops/window.rs", "pub struct Window;"),
    ];
    assert_eq!(violations(&files), [""; 0]);
}

#[test]
fn a_parent_and_a_child_that_use_each_other_are_a_circle() {
    for parent in [
        "mod conv; use conv::Conv; pub struct Op(Conv);",
        "mod conv; pub use conv::Conv; pub struct Op(Conv);",
        "mod conv; pub struct Op(conv::Conv);",
    ] {
        let files = [
            ("lib.rs", "mod ops;"),
            ("ops.rs", parent),
            ("ops/conv.rs", "pub struct Conv; fn f(_: super::Op) {}"),
        ];
        let found = violations(&files);
        assert_eq!(found.len(), 1, "{parent}: {found:#?}");
        assert!(found[0].contains("src/ops/conv.rs:1 imports src/ops.rs: super::Op"), "{found:#?}");
    }
}

#[test]
fn a_program_uses_the_library_beside_it() {
    let files = [
        ("lib.rs", "pub mod base;"),
        ("base.rs", "pub struct Shape;"),
        ("main.rs", "use small::base::Shape; fn main() { let _ = Shape; }"),
    ];
    assert_eq!(violations(&files), [""; 0]);
}

#[test]
fn an_exported_macro_is_its_file_s_and_not_the_root_s() {
    let files = [
        ("lib.rs", "mod base; mod ops;"),
        ("base.rs", "#[macro_export] macro_rules! shape { () => {} }"),
        ("ops.rs", "fn f() { crate::shape!() }"),
    ];
    assert_eq!(violations(&files), [""; 0]);
}

#[test]
fn a_module_without_a_place_in_the_order_is_named() {
    let files = [
        ("lib.rs", "mod base; mod extra;"),
        ("base.rs", "pub struct Shape;"),
        ("extra.rs", "fn f(_: crate::base::Shape) {}"),
    ];
    let found = violations(&files);
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("`extra` has no place in the order of src: add it to LAYERS"), "{found:#?}");
}

#[test]
fn a_module_without_a_file_is_an_error() {
    let sources = BTreeMap::from([("lib.rs".to_string(), "mod gone;".to_string())]);
    let error = examine(&LAYERED, &sources, &mut Vec::new()).unwrap_err();
    assert!(format!("{error:#}").contains("lib.rs:1: module `gone` is in neither gone.rs nor gone/mod.rs"));
}

#[test]
fn every_folder_is_in_the_repository() {
    for layers in &LAYERS {
        let folder = crate::paths::root().join(layers.folder);
        assert!(!super::read(&folder).unwrap().is_empty(), "{}", layers.folder);
    }
}
