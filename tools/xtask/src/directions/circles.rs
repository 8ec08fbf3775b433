//! Circles among imports: the strongly connected components, and the shortest circle of each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::resolve::Import;

/// The shortest circle of each set of files that import each other.
pub(crate) fn find(imports: &[Import]) -> Vec<Vec<&Import>> {
    let mut graph = BTreeMap::<&str, Vec<&Import>>::new();
    for import in imports {
        graph.entry(&import.from).or_default().push(import);
    }
    let mut done = BTreeSet::new();
    let mut found = Vec::new();
    for file in graph.keys() {
        if done.contains(file) {
            continue;
        }
        let reachable = reachable(&graph, file);
        let component: Vec<_> =
            reachable.iter().filter(|other| self::reachable(&graph, other).contains(file)).copied().collect();
        let circles = component.iter().filter_map(|file| circle(&graph, file));
        found.extend(circles.min_by_key(Vec::len));
        done.extend(component);
    }
    found
}

/// The files that a file imports, directly or through others.
fn reachable<'i>(graph: &BTreeMap<&'i str, Vec<&'i Import>>, file: &str) -> BTreeSet<&'i str> {
    let mut seen = BTreeSet::new();
    let mut pending: Vec<&str> = vec![file];
    while let Some(file) = pending.pop() {
        for import in graph.get(file).into_iter().flatten() {
            if seen.insert(&*import.to) {
                pending.push(&import.to);
            }
        }
    }
    seen
}

/// The shortest circle through a file, by breadth-first search.
fn circle<'i>(graph: &BTreeMap<&'i str, Vec<&'i Import>>, file: &str) -> Option<Vec<&'i Import>> {
    let mut reached_by = BTreeMap::<&str, &Import>::new();
    let mut pending = VecDeque::from([file]);
    while let Some(at) = pending.pop_front() {
        for import in graph.get(at).into_iter().flatten() {
            if reached_by.contains_key(&*import.to) {
                continue;
            }
            reached_by.insert(&import.to, import);
            pending.push_back(&import.to);
        }
    }
    let mut chain = vec![*reached_by.get(file)?];
    while chain[chain.len() - 1].from != file {
        chain.push(reached_by[&*chain[chain.len() - 1].from]);
    }
    chain.reverse();
    Some(chain)
}
