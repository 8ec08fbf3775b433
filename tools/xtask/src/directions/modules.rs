//! The module tree of a crate: which file holds each module, and the names that it defines and imports.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use syn::{Item, ItemMod};

use super::references;
use super::uses::{Path, Use, is_test};

/// A module: a file, or a `mod` block in one.
#[derive(Default)]
pub(crate) struct Module {
    /// Index of its parent; a crate's root has none.
    pub(crate) parent: Option<usize>,
    /// The file that it is in.
    pub(crate) file: String,
    pub(crate) children: BTreeMap<String, usize>,
    /// Names of what it defines.
    pub(crate) items: BTreeSet<String>,
    pub(crate) uses: Vec<Use>,
    /// Paths in code, other than in `use` declarations.
    pub(crate) references: Vec<Path>,
}

/// The modules of the crates in a folder: a library, a program, or both.
#[derive(Default)]
pub(crate) struct Tree {
    pub(crate) modules: Vec<Module>,
    /// The library's name and root module.
    pub(crate) library: Option<(String, usize)>,
    /// Macros with `#[macro_export]` and the modules that define them.
    pub(crate) exported_macros: BTreeMap<String, usize>,
}

impl Tree {
    /// Parses all files that belong to `lib.rs` or `main.rs`; `sources` holds their texts by path.
    pub(crate) fn parse(sources: &BTreeMap<String, String>, library: &str) -> Result<Tree> {
        let mut tree = Tree::default();
        for root in ["lib.rs", "main.rs"] {
            if sources.contains_key(root) {
                let index = tree.add_file(sources, root, None)?;
                if root == "lib.rs" {
                    tree.library = Some((library.to_string(), index));
                }
            }
        }
        Ok(tree)
    }

    pub(crate) fn has_modules(&self) -> bool {
        !self.modules.is_empty()
    }

    /// The root of a module's crate.
    pub(crate) fn root(&self, module: usize) -> usize {
        self.modules[module].parent.map_or(module, |parent| self.root(parent))
    }

    /// Whether `module` is inside `ancestor`.
    pub(crate) fn is_inside(&self, module: usize, ancestor: usize) -> bool {
        self.modules[module]
            .parent
            .is_some_and(|parent| parent == ancestor || self.is_inside(parent, ancestor))
    }

    fn add_file(
        &mut self,
        sources: &BTreeMap<String, String>,
        file: &str,
        parent: Option<usize>,
    ) -> Result<usize> {
        let parsed = syn::parse_file(&sources[file]).with_context(|| format!("parsing {file}"))?;
        let (folder, name) = file.rsplit_once('/').map_or(("", file), |(folder, name)| (folder, name));
        let inner = match name {
            "lib.rs" | "main.rs" | "mod.rs" => folder.to_string(),
            _ => join(folder, name.trim_end_matches(".rs")),
        };
        self.add(sources, file, &inner, parent, &parsed.items)
    }

    /// Adds a module; `folder` is where the files of its children are.
    fn add(
        &mut self,
        sources: &BTreeMap<String, String>,
        file: &str,
        folder: &str,
        parent: Option<usize>,
        items: &[Item],
    ) -> Result<usize> {
        let index = self.modules.len();
        self.modules.push(Module { parent, file: file.to_string(), ..Module::default() });
        for item in items {
            match item {
                Item::Mod(child) if !is_test(&child.attrs) => {
                    if let Some(added) = self.add_child(sources, index, folder, child)? {
                        self.modules[index].children.insert(child.ident.to_string(), added);
                    }
                }
                Item::Macro(definition) => {
                    let exported =
                        definition.attrs.iter().any(|attribute| attribute.path().is_ident("macro_export"));
                    if let Some(name) = definition.ident.as_ref().filter(|_| exported) {
                        self.exported_macros.insert(name.to_string(), index);
                    }
                }
                _ => {}
            }
        }
        let module = &mut self.modules[index];
        module.items.extend(items.iter().filter_map(name));
        (module.uses, module.references) = references::collect(items);
        Ok(index)
    }

    /// Adds a child module; `None` if its file is outside the folder.
    fn add_child(
        &mut self,
        sources: &BTreeMap<String, String>,
        parent: usize,
        folder: &str,
        child: &ItemMod,
    ) -> Result<Option<usize>> {
        let name = child.ident.to_string();
        let file = self.modules[parent].file.clone();
        if let Some((_, items)) = &child.content {
            return self.add(sources, &file, &join(folder, &name), Some(parent), items).map(Some);
        }
        if child.attrs.iter().any(|attribute| attribute.path().is_ident("path")) {
            return Ok(None);
        }
        let candidates = [format!("{}.rs", join(folder, &name)), join(&join(folder, &name), "mod.rs")];
        match candidates.iter().find(|candidate| sources.contains_key(*candidate)) {
            Some(found) => self.add_file(sources, found, Some(parent)).map(Some),
            None => {
                let line = child.ident.span().start().line;
                bail!("{file}:{line}: module `{name}` is in neither {} nor {}", candidates[0], candidates[1])
            }
        }
    }
}

/// The name that an item defines in its module.
fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        // Modules and imports are kept apart, the rest has no name.
        _ => return None,
    };
    Some(ident.to_string())
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_string() } else { format!("{folder}/{name}") }
}
