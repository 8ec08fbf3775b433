//! Which file defines what a path names: follows modules, imports, re-exports and globs.
//!
//! A module that only re-exports its children does not import them. A use of the re-exported name counts as an import
//! of the file that defines it.

use std::collections::BTreeMap;

use super::modules::Tree;
use super::uses::Path;

/// More steps than any chain of re-exports has; ends those that go in a circle.
const MAX_DEPTH: usize = 16;

/// One file uses what another one defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) from: String,
    pub(crate) line: usize,
    pub(crate) to: String,
    /// The path as the source has it.
    pub(crate) path: String,
}

/// What a path names.
#[derive(Clone, Copy)]
enum Target {
    Module(usize),
    /// An item of this module.
    Item(usize),
}

/// The imports among the files: the first one of each pair.
pub(crate) fn imports(tree: &Tree) -> Vec<Import> {
    let mut found = BTreeMap::<(&str, &str), Import>::new();
    for (index, module) in tree.modules.iter().enumerate() {
        let mut add = |path: &Path, to: usize| {
            let (from, to) = (&*module.file, &*tree.modules[to].file);
            let import = || Import {
                from: from.to_string(),
                line: path.line,
                to: to.to_string(),
                path: path.segments.join("::"),
            };
            if from != to {
                found.entry((from, to)).or_insert_with(import);
            }
        };
        for declaration in &module.uses {
            for to in used(tree, index, &declaration.path) {
                if !(declaration.is_public && tree.is_inside(to, index)) {
                    add(&declaration.path, to);
                }
            }
        }
        for path in &module.references {
            if let Some(Target::Item(to)) = resolve(tree, index, &path.segments, 0) {
                add(path, to);
            }
        }
    }
    found.into_values().collect()
}

/// The modules that define what a `use` declaration names. If it names a module, there are none: paths through that
/// module count instead.
fn used(tree: &Tree, module: usize, path: &Path) -> Vec<usize> {
    let [before @ .., last] = &path.segments[..] else { return Vec::new() };
    if last != "*" {
        return match resolve(tree, module, &path.segments, 0) {
            Some(Target::Item(to)) => vec![to],
            Some(Target::Module(_)) | None => Vec::new(),
        };
    }
    match resolve(tree, module, before, 0) {
        Some(Target::Module(from)) => everything(tree, from, 0),
        // the variants of an enum
        Some(Target::Item(to)) => vec![to],
        None => Vec::new(),
    }
}

/// The modules that define what a glob import of `module` brings.
fn everything(tree: &Tree, module: usize, depth: usize) -> Vec<usize> {
    let mut modules = Vec::new();
    if !tree.modules[module].items.is_empty() {
        modules.push(module);
    }
    if depth < MAX_DEPTH {
        for declaration in tree.modules[module].uses.iter().filter(|declaration| declaration.is_public) {
            let segments = &declaration.path.segments;
            match segments.split_last() {
                Some((last, before)) if last == "*" => {
                    if let Some(Target::Module(from)) = resolve(tree, module, before, depth + 1) {
                        modules.extend(everything(tree, from, depth + 1));
                    }
                }
                _ => {
                    if let Some(Target::Item(to)) = resolve(tree, module, segments, depth + 1) {
                        modules.push(to);
                    }
                }
            }
        }
    }
    modules
}

/// What a path names in a module; `None` if it begins with another crate, a local variable or a type parameter.
fn resolve(tree: &Tree, module: usize, segments: &[String], depth: usize) -> Option<Target> {
    let (first, mut rest) = segments.split_first()?;
    let mut at = match &**first {
        "crate" => Target::Module(tree.root(module)),
        "self" => Target::Module(module),
        "super" => Target::Module(tree.modules[module].parent?),
        name => match (lookup(tree, module, name, depth), &tree.library) {
            (Some(target), _) => target,
            (None, Some((library, root))) if library == name => Target::Module(*root),
            (None, _) => return None,
        },
    };
    while let (Target::Module(current), Some((name, after))) = (at, rest.split_first()) {
        at = match &**name {
            "super" => Target::Module(tree.modules[current].parent?),
            // An item that a macro generates: taken to be defined in the module that the path names.
            name => lookup(tree, current, name, depth).unwrap_or(Target::Item(current)),
        };
        rest = after;
    }
    Some(at)
}

/// What a name is in a module's scope.
fn lookup(tree: &Tree, module: usize, name: &str, depth: usize) -> Option<Target> {
    if depth > MAX_DEPTH {
        return None;
    }
    let scope = tree.modules.get(module)?;
    if let Some(child) = scope.children.get(name) {
        return Some(Target::Module(*child));
    }
    if scope.items.contains(name) {
        return Some(Target::Item(module));
    }
    if let Some(definer) = tree.exported_macros.get(name).filter(|_| scope.parent.is_none()) {
        return Some(Target::Item(*definer));
    }
    let named = scope.uses.iter().filter(|declaration| declaration.name == name);
    // `use name::name` would look for itself
    let mut named = named.filter(|declaration| declaration.path.segments[0] != name);
    if let Some(target) = named.find_map(|used| resolve(tree, module, &used.path.segments, depth + 1)) {
        return Some(target);
    }
    let globs = scope.uses.iter().filter(|declaration| declaration.name == "*");
    globs.into_iter().find_map(|glob| {
        let segments = &glob.path.segments;
        match resolve(tree, module, &segments[..segments.len() - 1], depth + 1)? {
            Target::Module(from) if from != module => lookup(tree, from, name, depth + 1),
            Target::Module(_) | Target::Item(_) => None,
        }
    })
}
