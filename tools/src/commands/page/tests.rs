//! Every layer is on the page, and nothing that a model is called can leave its place in it.

use std::path::Path;

use skipstone::Model;
use skipstone_tools::assemble::Wishes;
use skipstone_tools::convert::{Method, convert};
use skipstone_tools::data::Dataset;
use skipstone_tools::front::{ImportOptions, import};

use super::*;
use crate::commands::report::report;

const EVIL: &str = "<script>alert('&\"')</script>\u{7}";

/// HTML elements that have no end.
const VOID: [&str; 2] = ["meta", "br"];

/// The page of the digits' network, each name followed by `suffix`.
fn digits(suffix: &str) -> String {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let mut network = import(&models.join("digits.toml"), &ImportOptions::default()).unwrap().network;
    network.name += suffix;
    network.layers.iter_mut().for_each(|layer| layer.name += suffix);
    let images = Dataset::open_for_calibration(&models.join("digits-calibration.npz"), network.input, 8);
    let converted =
        convert(&network, Some(&images.unwrap()), Method::default(), Wishes::default(), &|_| {}).unwrap();
    let report = report(Model::parse(&converted.blob).unwrap(), &converted.blob).unwrap();
    let method = "a method".into();
    page(&Content {
        network: &network,
        converted: &converted,
        report: &report,
        method,
        calibration_images: 8,
        accuracy: None,
    })
    .unwrap()
}

/// The page's text outside of tags; checks that every element ends where it should.
fn well_formed(page: &str) -> String {
    let mut open = Vec::new();
    let mut text = String::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a document type");
    while let Some((before, tag)) = rest.split_once('<') {
        text += before;
        let (tag, after) = tag.split_once('>').expect("a tag ends");
        let quotes = tag.matches('"').count();
        assert!(quotes % 2 == 0, "an attribute with a tag's end in it: {tag}");
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "before {after:.80}"),
            None => {
                let name = tag.split_whitespace().next().expect("a name");
                if !VOID.contains(&name) {
                    open.push(name);
                }
            }
        }
        rest = after;
    }
    assert!(open.is_empty(), "left open: {open:?}");
    text + rest
}

#[test]
fn every_layer_is_in_every_part_of_the_page() {
    let text = well_formed(&digits(""));
    for block in ["layer1.0", "layer2.0", "layer2.1"] {
        for inner in ["conv1", "conv2"] {
            // noise, range, weights, memory and flash
            let layer = format!("{block}.{inner}");
            assert!(text.matches(&layer).count() >= 5, "{layer}: {}", text.matches(&layer).count());
        }
    }
    assert!(text.contains("layer2.0.downsample.0"));
    assert!(text.contains("No accuracy"));
}

#[test]
fn names_cannot_leave_their_place() {
    let page = digits(EVIL);
    let text = well_formed(&page);
    assert!(!page.contains("<script"));
    assert!(!page.contains('\u{7}'));
    let escaped = "layer1.0.conv1&lt;script&gt;alert('&amp;&quot;')&lt;/script&gt;\u{fffd}";
    assert!(text.contains(escaped), "{}", text.lines().find(|line| line.contains("layer1.0")).unwrap_or(""));
}

#[test]
fn the_page_needs_nothing_else() {
    let page = digits("");
    for reference in ["http", "src=", "href=", "url(", "@import", "<script", "<link"] {
        assert!(!page.contains(reference), "{reference}");
    }
}

#[test]
fn numbers_have_three_significant_digits() {
    let cases = [
        (0.0, "0"),
        (1234.5, "1234"),
        (24.26, "24.3"),
        (0.04421, "0.0442"),
        (-1.0, "-1.00"),
        (1e-9, "1.00e-9"),
    ];
    for (number, text) in cases {
        assert_eq!(significant(number), text);
    }
}
