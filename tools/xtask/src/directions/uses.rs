//! What `use` declarations bring into scope, and which items are for tests only.

use syn::{Attribute, ItemUse, Meta, Token, UseTree, Visibility};

/// A path as the source has it.
#[derive(Clone)]
pub(crate) struct Path {
    /// Its names, without generic arguments; the last one of a glob import is `*`.
    pub(crate) segments: Vec<String>,
    /// Its line in the file.
    pub(crate) line: usize,
}

/// A `use` declaration of one name, or of a glob.
pub(crate) struct Use {
    pub(crate) path: Path,
    /// The name that it brings into scope.
    pub(crate) name: String,
    /// It is visible outside the module: a re-export.
    pub(crate) is_public: bool,
}

/// Whether an item is compiled for tests only: `#[cfg(test)]`, or `test` among alternatives.
pub(crate) fn is_test(attributes: &[Attribute]) -> bool {
    let mentions_test = |attribute: &Attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            let words: Vec<_> =
                list.tokens.to_string().split(|c: char| !c.is_alphanumeric()).map(String::from).collect();
            words.iter().any(|word| word == "test") && !words.iter().any(|word| word == "not")
        }
        _ => false,
    };
    attributes.iter().any(mentions_test)
}

/// Adds what a `use` declaration brings into scope.
pub(crate) fn flatten(declaration: &ItemUse, uses: &mut Vec<Use>) {
    // `::name` is always another crate.
    if declaration.leading_colon.is_none() {
        let is_public = !matches!(declaration.vis, Visibility::Inherited);
        flatten_tree(&declaration.tree, &[], is_public, uses);
    }
}

fn flatten_tree(tree: &UseTree, prefix: &[String], is_public: bool, uses: &mut Vec<Use>) {
    let with = |name: String| [prefix, &[name]].concat();
    let mut add = |mut segments: Vec<String>, name: String, line: usize| {
        // `use a::b::{self}` brings `b` into scope
        let mut name = name;
        if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
            segments.pop();
            if name == "self" {
                name = segments[segments.len() - 1].clone();
            }
        }
        uses.push(Use { path: Path { segments, line }, name, is_public });
    };
    match tree {
        UseTree::Path(path) => flatten_tree(&path.tree, &with(path.ident.to_string()), is_public, uses),
        UseTree::Name(used) => {
            add(with(used.ident.to_string()), used.ident.to_string(), used.ident.span().start().line);
        }
        UseTree::Rename(used) => {
            add(with(used.ident.to_string()), used.rename.to_string(), used.ident.span().start().line);
        }
        UseTree::Glob(glob) => add(with("*".into()), "*".into(), line(&glob.star_token)),
        UseTree::Group(group) => {
            group.items.iter().for_each(|tree| flatten_tree(tree, prefix, is_public, uses));
        }
    }
}

fn line(star: &Token![*]) -> usize {
    star.spans[0].start().line
}
