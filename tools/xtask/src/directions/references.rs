//! The paths that a module's code mentions, in macro calls too; code for tests is left out.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, ItemMod, ItemUse, Macro, Visibility};

use super::uses::{Path, Use, flatten, is_test};

/// The `use` declarations and the paths of these items.
pub(crate) fn collect(items: &[Item]) -> (Vec<Use>, Vec<Path>) {
    let mut collector = Collector { uses: Vec::new(), paths: Vec::new() };
    items.iter().for_each(|item| collector.visit_item(item));
    (collector.uses, collector.paths)
}

struct Collector {
    uses: Vec<Use>,
    paths: Vec<Path>,
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Const(item) => &item.attrs[..],
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            ImplItem::Macro(item) => &item.attrs,
            // `ImplItem` is non-exhaustive.
            _ => &[],
        };
        if !is_test(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    // A child module has its own names.
    fn visit_item_mod(&mut self, _: &'ast ItemMod) {}

    fn visit_item_use(&mut self, declaration: &'ast ItemUse) {
        flatten(declaration, &mut self.uses);
    }

    // Doc comments and `pub(in path)` import nothing.
    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none()
            && let Some(first) = path.segments.first()
        {
            let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.paths.push(Path { segments, line: first.ident.span().start().line });
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        visit::visit_macro(self, called);
        scan(called.tokens.clone(), &mut self.paths);
    }
}

/// Adds every `a::b` in a macro's tokens, which need not be Rust.
fn scan(tokens: TokenStream, paths: &mut Vec<Path>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is_separator = |index: usize| {
        let colon =
            |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(p)) if p.as_char() == ':');
        colon(tokens.get(index)) && colon(tokens.get(index + 1))
    };
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        let first = index;
        index += 1;
        match token {
            TokenTree::Group(group) => scan(group.stream(), paths),
            TokenTree::Ident(ident) => {
                let mut segments = vec![ident.to_string()];
                while is_separator(index)
                    && let Some(TokenTree::Ident(next)) = tokens.get(index + 2)
                {
                    segments.push(next.to_string());
                    index += 3;
                }
                // `::name` is another crate's, or follows something that is not a name
                let continues = first >= 2 && is_separator(first - 2);
                if segments.len() > 1 && !continues {
                    paths.push(Path { segments, line: ident.span().start().line });
                }
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        // `Item` is non-exhaustive, and verbatim tokens have no attributes.
        _ => &[],
    }
}
