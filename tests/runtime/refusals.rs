//! Blobs that `Model::parse` refuses, each with the precise error.

use skipstone::error::{LayerError, ParseError};
use skipstone::host::format::{
    self, Addition, Conv2d, Dense, Finish, GlobalAveragePool, HEADER_BYTES, Header, Layer, MAX_OUTPUTS,
    MAX_TENSORS, Operation, Output, Pool2d, Shortcut, VERSION, WEIGHTS_ALIGN, Window,
};
use skipstone::host::{Kernels, checksum};
use skipstone::{Model, Shape};
use skipstone_tools::blob::Blob;

use crate::networks;
use crate::parts::{Parts, assemble, repaired};

/// The error of a blob; `None` where it parses.
fn error(blob: &[u8]) -> Option<ParseError> {
    Model::parse(blob).err()
}

/// The small network's blob.
fn good() -> Blob {
    networks::planned(&networks::small())
}

#[test]
fn the_good_blob_parses() {
    let blob = good();
    let model = Model::parse(&blob).unwrap();
    assert_eq!((model.name(), model.input()), ("random", Shape::new(8, 8, 2)));
    assert_eq!((model.classes(), model.blob_bytes()), (3, blob.len()));
    assert_eq!(model.labels().collect::<Vec<_>>(), ["cat", "dog", "ship"]);
    assert_eq!((model.label(2), model.label(3)), (Some("ship"), None));
    assert_eq!(model.layers().count(), 11);
    for entry in model.layers() {
        assert!(entry.unwrap().name.starts_with("layer "));
    }
    assert_eq!(Parts::of(&blob).blob(), blob, "taken apart and put together");
    assert_eq!(model.kernels(), Kernels::REFERENCE | Kernels::POOLING);
}

/// A whole flash slot can be given.
#[test]
fn bytes_after_the_blob_are_ignored() {
    let slot = Blob::from(&[&good()[..], &[0xff; 100]].concat()[..]);
    assert_eq!(error(&slot), None);
}

#[test]
fn cut_off_at_every_length() {
    let blob = good();
    for given in 0..blob.len() {
        let needed = if given < HEADER_BYTES { HEADER_BYTES } else { blob.len() };
        assert_eq!(error(&blob[..given]), Some(ParseError::Truncated { needed, given }));
    }
}

#[test]
fn an_address_that_is_not_a_multiple_of_four() {
    let blob = good();
    for offset in 0..=16 {
        let moved = Blob::from(&[&vec![0; offset], &blob[..]].concat()[..]);
        let expected = (offset % 4 != 0).then_some(ParseError::Misaligned);
        assert_eq!(error(&moved[offset..]), expected, "at {offset}");
    }
}

/// Every bit of the blob, flipped.
#[test]
fn every_flipped_bit_is_found() {
    let good = good();
    let (stored, len) = (checksum(&good), good.len());
    for byte in 0..len {
        for bit in 0..8 {
            let mut bytes = good.to_vec();
            bytes[byte] ^= 1 << bit;
            let blob = Blob::from(&bytes[..]);
            let total = u32::from_le_bytes(*bytes[8..].first_chunk().unwrap()) as usize;
            let expected = match byte {
                0..4 => ParseError::NotABlob,
                4..6 => {
                    ParseError::Version { found: VERSION ^ 1 << ((byte - 4) * 8 + bit), supported: VERSION }
                }
                8..12 if total > len => ParseError::Truncated { needed: total, given: len },
                8..12 => {
                    let computed = checksum(&bytes[..total]);
                    ParseError::Checksum { stored, computed }
                }
                12..16 => {
                    ParseError::Checksum { stored: stored ^ 1 << ((byte - 12) * 8 + bit), computed: stored }
                }
                _ => ParseError::Checksum { stored, computed: checksum(&bytes) },
            };
            assert_eq!(error(&blob), Some(expected), "byte {byte}, bit {bit}");
        }
    }
}

#[test]
fn other_versions_are_refused_by_number() {
    let old = [
        &include_bytes!("../data/version-1.skip")[..],
        include_bytes!("../data/version-2.skip"),
        include_bytes!("../data/version-3.skip"),
    ];
    for (found, old) in (1..).zip(old) {
        assert_eq!(error(&Blob::from(old)), Some(ParseError::Version { found, supported: VERSION }));
    }
    for found in [0, 1, VERSION - 1, VERSION + 1, u16::MAX] {
        let mut bytes = good().to_vec();
        bytes[4..6].copy_from_slice(&found.to_le_bytes());
        let expected = ParseError::Version { found, supported: VERSION };
        // whatever the rest is: another version may have another checksum
        assert_eq!(error(&Blob::from(&bytes[..])), Some(expected));
        assert_eq!(error(&repaired(bytes)), Some(expected));
    }
}

/// Every algorithm is asked for its sizes before a layer is checked: windows and channels of any size, and
/// weights of another algorithm, are refused and never divide by zero.
#[test]
fn any_window_with_any_algorithm_is_refused_or_whole() {
    let blob = good();
    for algorithm in 0..=6 {
        for kernel in [[0, 0], [0, 3], [3, 0], [3, 3], [15, 15], [16, 1], [255, 255]] {
            for (stride, channels) in [([0, 0], 4), ([1, 1], 0), ([2, 2], u16::MAX), ([255, 1], 4)] {
                let mut parts = Parts::of(&blob);
                let record = conv2d(&mut parts, 0);
                (record.algorithm, record.channels) = (algorithm, channels);
                (record.window.0, record.window.1) = (kernel, stride);
                assert!(error(&parts.blob()).is_some(), "{algorithm}, {kernel:?}, {stride:?}, {channels}");
            }
        }
    }
}

/// Header fields that contradict each other, under a checksum that is right.
#[test]
fn contradictions_in_the_header() {
    let good = good();
    let word = |at: usize, value: u32| {
        let mut bytes = good.to_vec();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        error(&repaired(bytes))
    };
    let header = Some(ParseError::Header);
    let needed = Model::parse(&good).unwrap().kernels();
    for found in [0, needed & (needed - 1), needed | (Kernels::ALL + 1), u16::MAX] {
        let expected = ParseError::Kernels { found, needed };
        assert_eq!(word(4, u32::from(VERSION) | u32::from(found) << 16), Some(expected));
    }
    let room = (good.len() - HEADER_BYTES) as u32;
    for manifest_len in [room + 1, room + 100, u32::MAX - 40, u32::MAX] {
        assert_eq!(word(28, manifest_len), header, "a manifest of {manifest_len} bytes");
    }
    let tensors = Header::read(&good).unwrap().tensors;
    for wrong in [0, 1, tensors - 1, tensors + 1, u16::MAX] {
        assert_eq!(word(24, wrong.into()), Some(ParseError::Plan), "{wrong} tensors");
    }

    // a blob whose total is shorter than its header, or than its manifest
    let manifest_end = HEADER_BYTES + Parts::of(&good).records().len();
    for total in (0..HEADER_BYTES).chain([HEADER_BYTES, manifest_end - 1]) {
        let mut bytes = good.to_vec();
        bytes[8..12].copy_from_slice(&(total as u32).to_le_bytes());
        let crc = checksum(&bytes[..total]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(error(&Blob::from(&bytes[..])), header, "{total} bytes");
    }

    // padding before the weights that is not zero
    let mut network = networks::small();
    let blob = loop {
        let blob = networks::planned(&network);
        let manifest_end = HEADER_BYTES + Parts::of(&blob).records().len();
        if !manifest_end.is_multiple_of(WEIGHTS_ALIGN) {
            let mut bytes = blob.to_vec();
            bytes[manifest_end.next_multiple_of(WEIGHTS_ALIGN) - 1] = 1;
            break repaired(bytes);
        }
        network.name.push('x');
    };
    assert_eq!(error(&blob), header);
}

#[test]
fn manifests_that_do_not_decode() {
    let good = good();
    let parts = Parts::of(&good);
    let records = parts.records();
    let manifest = |bytes: &[u8]| error(&assemble(&parts.header, bytes, &parts.weights));
    assert_eq!(manifest(&records), None);
    assert_eq!(manifest(&[]), Some(ParseError::Manifest));
    assert_eq!(manifest(&[0xff; 100]), Some(ParseError::Manifest));
    assert_eq!(manifest(&[&records[..], &[0]].concat()), Some(ParseError::Manifest), "a byte too many");
    let mut not_utf8 = records.clone();
    not_utf8[1] = 0xff;
    assert_eq!(manifest(&not_utf8), Some(ParseError::Manifest), "a name that is not UTF-8");
    for len in 0..records.len() {
        let error = manifest(&records[..len]);
        assert!(matches!(error, Some(ParseError::Manifest | ParseError::Record { .. })), "{len}: {error:?}");
    }
}

/// Changes of one thing each in a good blob, and the errors that they lead to.
#[test]
fn changed_records() {
    type Case = (&'static str, fn(&mut Parts<'_>), ParseError);
    const OUTSIDE: u32 = 1 << 24;
    let section = |layer, offset, length| ParseError::Section { layer, offset, length };
    let layer = |layer, error| ParseError::Layer { layer, error };
    let tensor = |layer, tensor| ParseError::Tensor { layer, tensor };
    let length = |needed, given| LayerError::Length { needed, given };
    let cases: &[Case] = &[
        // the manifest
        ("no layers", |parts| parts.manifest.layers = 0, ParseError::Manifest),
        ("a layer less than there are", |parts| parts.manifest.layers -= 1, ParseError::Manifest),
        ("a layer more than there are", |parts| parts.manifest.layers += 1, ParseError::Record { layer: 11 }),
        ("as many layers as 16 bits count", |parts| parts.manifest.layers = u16::MAX, ParseError::Manifest),
        ("an input without rows", |parts| parts.manifest.input.0 = 0, ParseError::Manifest),
        ("an input without pixels", |parts| parts.manifest.input.1 = 0, ParseError::Manifest),
        ("an input without channels", |parts| parts.manifest.input.2 = 0, ParseError::Manifest),
        // tensors
        ("a layer that reads itself", |parts| parts.layers[0].reads = 1, tensor(0, 1)),
        ("a layer that reads a later one", |parts| parts.layers[1].reads = 5, tensor(1, 5)),
        ("a tensor that never exists", |parts| parts.layers[1].reads = u16::MAX, tensor(1, u16::MAX)),
        ("a shortcut from its own layer", |parts| shortcut(parts, 2).tensor = 3, tensor(2, 3)),
        ("a shortcut from a later layer", |parts| shortcut(parts, 2).tensor = 9, tensor(2, 9)),
        ("a shortcut that never exists", |parts| shortcut(parts, 2).tensor = u16::MAX, tensor(2, u16::MAX)),
        (
            "a layer that reads class scores",
            |parts| {
                let scales = parts.section(&[1.0f32]);
                global_average_pool(parts).finish = Finish::Scores { scales, count: 1 };
            },
            tensor(10, 10),
        ),
        // sections
        ("weights outside", |parts| conv2d(parts, 0).weights = OUTSIDE, section(0, OUTSIDE, 72)),
        ("weights at the end of it all", |parts| conv2d(parts, 0).weights = !3, section(0, !3, 72)),
        ("weights between words", |parts| conv2d(parts, 0).weights = 1, section(0, 1, 72)),
        ("bias outside", |parts| conv2d(parts, 0).bias = OUTSIDE, section(0, OUTSIDE, 16)),
        ("bias between words", |parts| conv2d(parts, 0).bias = 2, section(0, 2, 16)),
        (
            "multipliers outside",
            |parts| conv2d(parts, 0).requantize.multipliers = OUTSIDE,
            section(0, OUTSIDE, 16),
        ),
        ("multipliers between words", |parts| conv2d(parts, 0).requantize.multipliers = 6, section(0, 6, 16)),
        (
            "shifts outside",
            |parts| conv2d(parts, 0).requantize.rounding = format::Rounding::Twice { shifts: OUTSIDE },
            section(0, OUTSIDE, 4),
        ),
        ("padding pixel outside", |parts| conv2d(parts, 0).padding_pixel = OUTSIDE, section(0, OUTSIDE, 2)),
        ("a path's bias outside", |parts| conv2d(parts, 1).bias = OUTSIDE, {
            section(1, OUTSIDE, 4 * usize::from(conv2d(&mut Parts::of(&good()), 1).channels))
        }),
        ("a projection's bias outside", |parts| conv2d(parts, 3).bias = OUTSIDE, {
            section(3, OUTSIDE, 4 * usize::from(conv2d(&mut Parts::of(&good()), 3).channels))
        }),
        ("dense weights outside", |parts| dense(parts).weights = OUTSIDE, section(10, OUTSIDE, 18)),
        ("dense bias outside", |parts| dense(parts).bias = OUTSIDE, section(10, OUTSIDE, 12)),
        (
            "scales outside",
            |parts| dense(parts).finish = Finish::Scores { scales: OUTSIDE, count: 3 },
            section(10, OUTSIDE, 12),
        ),
        // a convolution
        ("no channels", |parts| conv2d(parts, 0).channels = 0, layer(0, LayerError::Geometry)),
        ("kernel of no rows", |parts| conv2d(parts, 0).window.0[0] = 0, layer(0, LayerError::Geometry)),
        ("kernel of 16 columns", |parts| conv2d(parts, 0).window.0 = [1, 16], layer(0, LayerError::Geometry)),
        ("no stride", |parts| conv2d(parts, 0).window.1[1] = 0, layer(0, LayerError::Geometry)),
        ("stride of 8", |parts| conv2d(parts, 0).window.1[0] = 8, layer(0, LayerError::Geometry)),
        (
            "padding as large as the kernel",
            |parts| conv2d(parts, 0).window.2[2] = 3,
            layer(0, LayerError::Geometry),
        ),
        (
            "a window larger than the input",
            |parts| {
                conv2d(parts, 0).window = Window([7; 2], [1; 2], [0; 4]);
                parts.manifest.input.0 = 6;
            },
            layer(0, LayerError::Geometry),
        ),
        ("depthwise with other channels", |parts| conv2d(parts, 0).depthwise = true, layer(0, length(2, 4))),
        ("an unknown algorithm", |parts| conv2d(parts, 0).algorithm = 6, layer(0, LayerError::Algorithm)),
        ("shift of 0", |parts| once(parts, 0), layer(0, LayerError::Requantization)),
        ("shift of 57", |parts| once(parts, 57), layer(0, LayerError::Requantization)),
        (
            "clamp above its zero point",
            |parts| conv2d(parts, 0).requantize.clamp = format::Clamp { zero_point: 0, min: 1, max: 5 },
            layer(0, LayerError::Requantization),
        ),
        (
            "clamp below its zero point",
            |parts| conv2d(parts, 0).requantize.clamp = format::Clamp { zero_point: 0, min: -5, max: -1 },
            layer(0, LayerError::Requantization),
        ),
        (
            "a negative multiplier",
            |parts| {
                let section = parts.section(&[1, 2, -3, 4]);
                conv2d(parts, 0).requantize.multipliers = section;
            },
            layer(0, LayerError::Requantization),
        ),
        (
            "a sum that could leave 32 bits",
            |parts| {
                let bias = parts.section(&[0, i32::MAX - 18 * 128 * 128, i32::MAX - 18 * 128 * 128 + 1, 0]);
                conv2d(parts, 0).bias = bias;
            },
            layer(0, LayerError::Accumulator { channel: 2 }),
        ),
        (
            "the most negative bias",
            |parts| {
                let section = parts.section(&[i32::MIN, 0, 0, 0]);
                conv2d(parts, 0).bias = section;
            },
            layer(0, LayerError::Accumulator { channel: 0 }),
        ),
        // shapes that do not follow each other
        (
            "a pooling window larger than its input",
            |parts| pool2d(parts).window = Window([9; 2], [1; 2], [0; 4]),
            layer(8, LayerError::Geometry),
        ),
        // shortcuts
        (
            "a path that changes its input's channels",
            |parts| conv2d(parts, 2).channels = 3,
            layer(2, LayerError::Block),
        ),
        ("an identity that shrinks", |parts| shortcut(parts, 7).stride = [1; 2], layer(7, LayerError::Block)),
        (
            "a negative multiplier of a shortcut",
            |parts| fused(parts, -1, 0),
            layer(2, LayerError::Requantization),
        ),
        ("a shortcut's shift of 21", |parts| fused(parts, 1, 21), layer(2, LayerError::Requantization)),
        (
            "a subsampling without stride",
            |parts| shortcut(parts, 7).stride[0] = 0,
            layer(7, LayerError::Block),
        ),
        (
            "a subsampling of too many channels",
            |parts| shortcut(parts, 7).channels_before = u16::MAX,
            layer(7, LayerError::Block),
        ),
        (
            "an addition fused into a sum that is rounded twice",
            |parts| {
                let shifts = parts.section(&[0i8; 8]);
                conv2d(parts, 2).requantize.rounding = format::Rounding::Twice { shifts };
            },
            layer(2, LayerError::Block),
        ),
        ("pooling that adds", |parts| add(parts, 8), layer(8, LayerError::Shortcut)),
        ("global pooling that adds", |parts| add(parts, 9), layer(9, LayerError::Shortcut)),
        ("a dense layer that adds", |parts| add(parts, 10), layer(10, LayerError::Shortcut)),
        // reductions
        ("a dense layer without outputs", |parts| dense(parts).outputs = 0, layer(10, LayerError::Geometry)),
        (
            "two scales for three classes",
            |parts| {
                let scales = parts.section(&[1.0f32; 2]);
                dense(parts).finish = Finish::Scores { scales, count: 2 };
            },
            layer(10, length(3, 2)),
        ),
        (
            "no scales",
            |parts| dense(parts).finish = Finish::Scores { scales: 0, count: 0 },
            layer(10, length(3, 0)),
        ),
        (
            "a scale that is not a number",
            |parts| scale(parts, f32::NAN),
            layer(10, LayerError::Requantization),
        ),
        ("an infinite scale", |parts| scale(parts, f32::INFINITY), layer(10, LayerError::Requantization)),
        ("a scale of zero", |parts| scale(parts, 0.0), layer(10, LayerError::Requantization)),
        ("a negative scale", |parts| scale(parts, -1.0), layer(10, LayerError::Requantization)),
        ("a scale of infinite scores", |parts| scale(parts, 1e30), layer(10, LayerError::Requantization)),
        (
            "a mean over an input with a zero point",
            |parts| {
                let clamp = format::Clamp { zero_point: 0, min: -128, max: 127 };
                let record = global_average_pool(parts);
                (record.zero_point, record.finish) = (1, Finish::Mean { clamp });
            },
            layer(9, LayerError::Requantization),
        ),
        // what int8 values stand for
        (
            "a step that is not a number",
            |parts| step(parts, 0, f32::NAN),
            layer(0, LayerError::Requantization),
        ),
        ("a step of zero", |parts| step(parts, 8, 0.0), layer(8, LayerError::Requantization)),
        ("a negative step", |parts| step(parts, 2, -1.0), layer(2, LayerError::Requantization)),
        ("an infinite step", |parts| step(parts, 9, f32::INFINITY), layer(9, LayerError::Requantization)),
        // outputs
        ("no outputs", |parts| parts.layers[10].output = None, ParseError::Output),
        (
            "an output too many",
            |parts| parts.layers[..MAX_OUTPUTS].iter_mut().for_each(|layer| layer.output = Some(PLAIN)),
            ParseError::Output,
        ),
        (
            "softmax of int8 values",
            |parts| parts.layers[9].output = Some(Output { softmax: format::Softmax::Float, ..PLAIN }),
            ParseError::Output,
        ),
        (
            "TensorFlow Lite's softmax of int8 values",
            |parts| parts.layers[9].output = Some(Output { softmax: FIXED, ..PLAIN }),
            ParseError::Output,
        ),
        (
            "a softmax with a negative multiplier",
            |parts| {
                let softmax = format::Softmax::Fixed { multiplier: -1, left_shift: 0 };
                parts.layers[10].output = Some(Output { softmax, ..PLAIN });
            },
            ParseError::Output,
        ),
        (
            "a softmax that shifts by 32",
            |parts| {
                let softmax = format::Softmax::Fixed { multiplier: 1 << 30, left_shift: 32 };
                parts.layers[10].output = Some(Output { softmax, ..PLAIN });
            },
            ParseError::Output,
        ),
        (
            "softmax of what has become int8 values",
            |parts| {
                let multipliers = parts.section(&[1i32]);
                let clamp = format::Clamp { zero_point: 0, min: -128, max: 127 };
                let rounding = format::Rounding::Once { shift: 9 };
                let requantize = format::Requantize { multipliers, rounding, clamp };
                dense(parts).finish = Finish::Requantize { count: 1, requantize };
            },
            ParseError::Output,
        ),
        // labels
        ("a label too few", |parts| labels(parts, b"cat\0dog\0"), ParseError::Labels),
        ("a label too many", |parts| labels(parts, b"cat\0dog\0ship\0frog\0"), ParseError::Labels),
        ("a label without its end", |parts| labels(parts, b"cat\0dog\0ship"), ParseError::Labels),
        ("bytes after the labels", |parts| labels(parts, b"cat\0dog\0ship\0frog"), ParseError::Labels),
        ("labels that are not UTF-8", |parts| labels(parts, b"cat\0d\xffg\0ship\0"), ParseError::Labels),
        ("labels that are only an end", |parts| labels(parts, b"\0"), ParseError::Labels),
        ("labels outside", |parts| parts.manifest.labels = OUTSIDE, ParseError::Labels),
        ("endless labels", |parts| parts.manifest.labels_len = u32::MAX, ParseError::Labels),
        (
            "labels without class scores",
            |parts| {
                parts.layers[9].output = Some(PLAIN);
                parts.layers.pop();
                parts.manifest.layers -= 1;
                for frame in [false, true] {
                    let segments = parts.section(&[10u8]);
                    let plan = parts.plan(frame);
                    (plan.segments, plan.segment_count) = (segments, 1);
                }
                parts.header.tensors = 11;
            },
            ParseError::Labels,
        ),
        // plans
        ("a row table outside", |parts| parts.manifest.rows.rows = OUTSIDE, ParseError::Plan),
        ("a frame's row table outside", |parts| parts.manifest.frame.rows = OUTSIDE, ParseError::Plan),
        ("a row table between words", |parts| parts.manifest.rows.rows = 1, ParseError::Plan),
        ("an endless row table", |parts| parts.manifest.rows.row_count = u32::MAX, ParseError::Plan),
        ("strips outside", |parts| parts.manifest.rows.strips = OUTSIDE, ParseError::Plan),
        (
            "a strip of no rows",
            |parts| parts.manifest.frame.strips = parts.section(&[0u8; 40]),
            ParseError::Plan,
        ),
        ("segments outside", |parts| parts.manifest.frame.segments = OUTSIDE, ParseError::Plan),
        ("no segments", |parts| parts.manifest.rows.segment_count = 0, ParseError::Plan),
        ("a segment too many", |parts| segments(parts, &[10, 1, 1]), ParseError::Plan),
        ("a layer in no segment", |parts| segments(parts, &[10]), ParseError::Plan),
        ("a segment without layers", |parts| segments(parts, &[10, 0, 1]), ParseError::Plan),
        ("endless segments", |parts| parts.manifest.rows.segment_count = u16::MAX, ParseError::Plan),
    ];
    let good = good();
    for (what, change, expected) in cases {
        let mut parts = Parts::of(&good);
        change(&mut parts);
        assert_eq!(error(&parts.blob()), Some(*expected), "{what}");
    }
}

/// Changes that leave a good blob good: the reasons above are not too strict.
#[test]
fn harmless_changes_parse() {
    type Case = (&'static str, fn(&mut Parts<'_>));
    let cases: &[Case] = &[
        ("as many outputs as there can be", |parts| {
            parts.layers[..MAX_OUTPUTS - 1].iter_mut().for_each(|layer| layer.output = Some(PLAIN));
        }),
        ("TensorFlow Lite's softmax", |parts| {
            parts.layers[10].output = Some(Output { softmax: FIXED, ..PLAIN });
            parts.header.kernels |= Kernels::FIXED_SOFTMAX;
        }),
        ("no labels", |parts| parts.manifest.labels_len = 0),
        ("the path reads the shortcut's tensor", |parts| parts.layers[2].reads = 1),
        ("a mean", |parts| {
            let clamp = format::Clamp { zero_point: 0, min: -128, max: 127 };
            let record = global_average_pool(parts);
            (record.zero_point, record.finish) = (0, Finish::Mean { clamp });
        }),
    ];
    let good = good();
    for (what, change) in cases {
        let mut parts = Parts::of(&good);
        change(&mut parts);
        assert_eq!(error(&parts.blob()), None, "{what}");
    }
}

/// A layer reads at most as far back as a segment can be long.
#[test]
fn tensors_too_far_back_are_refused() {
    let pool = |reads| Layer { reads, ..pooling() };
    for (distance, refused) in [(1, false), (MAX_TENSORS as u16, false), (MAX_TENSORS as u16 + 1, true)] {
        // the last layer reads as many tensors back
        let mut layers: Vec<Layer<'_>> = (0..60).map(pool).collect();
        let last = 60 + 1 - distance;
        layers.push(pool(last));
        let error = error(&chain(&layers, Vec::new()));
        assert_eq!(error, refused.then_some(ParseError::Tensor { layer: 60, tensor: last }), "{distance}");
    }
}

/// A record whose operation is not one that this version knows.
#[test]
fn records_of_an_unknown_kind() {
    let good = good();
    let parts = Parts::of(&good);
    // pooling is operation 1, after the name, the output, the tensor read, the quantization and the shortcut
    let before = Parts { layers: parts.layers[..8].to_vec(), ..parts.clone() }.records().len();
    let operation = before + 1 + parts.layers[8].name.len() + 1 + 1 + 5 + 1;
    let mut records = parts.records();
    assert_eq!(records[operation], 1, "pooling is operation 1");
    for unknown in [4, 5, 255] {
        records[operation] = unknown;
        let blob = assemble(&parts.header, &records, &parts.weights);
        assert_eq!(error(&blob), Some(ParseError::Record { layer: 8 }));
    }
}

/// Thousands of layers that share one large section: parsing takes time in proportion to the blob's bytes, or ends in
/// an error as soon as it would take longer.
#[test]
fn parsing_looks_at_each_byte_a_few_times_only() {
    const LAYERS: u16 = 4000;
    // `Model::parse` promises that a byte is looked at eight times on average
    const LOOKS: usize = 8;
    for channels in [1u16, 16, 100, 1000, 10_000] {
        // depthwise layers with a bias and a multiplier for each channel, all the same
        let mut weights = vec![0; 8 * usize::from(channels)];
        let multipliers = 4 * u32::from(channels);
        weights[multipliers as usize..].as_chunks_mut().0.fill(1i32.to_le_bytes());
        let conv = Conv2d {
            channels,
            depthwise: true,
            algorithm: 0,
            window: Window([1; 2], [1; 2], [0; 4]),
            weights: 0,
            bias: 0,
            padding_pixel: 0,
            requantize: format::Requantize {
                multipliers,
                rounding: format::Rounding::Once { shift: 30 },
                clamp: format::Clamp { zero_point: 0, min: -128, max: 127 },
            },
        };
        let operation = Operation::Conv2d(conv);
        let layers: Vec<Layer<'_>> =
            (0..LAYERS).map(|reads| Layer { reads, operation, ..pooling() }).collect();
        let blob = chain_of(Shape::new(1, 1, channels), &layers, weights);
        // the checked sections are the biases and the multipliers; records and weights are the budget
        let parts = Parts::of(&blob);
        let manifest = Parts { layers: Vec::new(), ..parts.clone() }.records().len();
        let records = parts.records().len() - manifest;
        let per_layer = 8 * usize::from(channels);
        let budget = LOOKS * (records + parts.weights.len());
        let affordable = budget / per_layer;
        let expected = (affordable < LAYERS.into()).then_some(ParseError::Work { layer: affordable as u16 });
        assert_eq!(error(&blob), expected, "{channels} channels");
        assert_eq!(expected.is_none(), channels <= 16, "{channels} channels: both cases are seen");
    }
}

const PLAIN: Output<'_> = Output { name: "more", softmax: format::Softmax::None };
const FIXED: format::Softmax = format::Softmax::Fixed { multiplier: 1 << 30, left_shift: 20 };

/// A layer that passes the input on.
fn pooling() -> Layer<'static> {
    let window = Window([1; 2], [1; 2], [0; 4]);
    Layer {
        name: "",
        output: None,
        reads: 0,
        quantization: format::Quantization { scale: 1.0, zero_point: 0 },
        shortcut: None,
        operation: Operation::Pool2d(Pool2d { window, kind: format::Pooling::Max }),
    }
}

/// A blob of layers over one pixel, the last of which makes the output. Its plans parse; nobody proves them.
fn chain(layers: &[Layer<'_>], weights: Vec<u8>) -> Blob {
    chain_of(Shape::new(1, 1, 1), layers, weights)
}

fn chain_of(input: Shape, layers: &[Layer<'_>], weights: Vec<u8>) -> Blob {
    let good = good();
    let mut layers = layers.to_vec();
    layers.last_mut().unwrap().output = Some(PLAIN);
    let Parts { header, manifest, .. } = Parts::of(&good);
    let mut parts = Parts { header, manifest, layers, weights };
    parts.manifest.input = input.into();
    (parts.manifest.layers, parts.manifest.labels_len) = (parts.layers.len() as u16, 0);
    let count = parts.layers.len();
    let mut each = vec![47u8; count / 47];
    each.extend([(count % 47) as u8].into_iter().filter(|rest| *rest > 0));
    let (segments, strips) = (parts.section(&each), parts.section(&vec![1u8; count]));
    for frame in [false, true] {
        let plan = parts.plan(frame);
        *plan = format::Plan { rows: 0, row_count: 0, strips, segments, segment_count: each.len() as u16 };
    }
    parts.header.tensors = 48;
    parts.blob()
}

fn conv2d<'p>(parts: &'p mut Parts<'_>, layer: usize) -> &'p mut Conv2d {
    match &mut parts.layers[layer].operation {
        Operation::Conv2d(record) => record,
        other => panic!("{other:?}"),
    }
}

fn shortcut<'p>(parts: &'p mut Parts<'_>, layer: usize) -> &'p mut Shortcut {
    parts.layers[layer].shortcut.as_mut().unwrap()
}

/// How the identity block adds its shortcut.
fn fused(parts: &mut Parts<'_>, multiplier: i32, shift: u8) {
    shortcut(parts, 2).addition = Addition::Fused { zero_point: 0, multiplier, shift };
}

/// Gives a layer a shortcut from the tensor that it reads.
fn add(parts: &mut Parts<'_>, layer: usize) {
    let shortcut = Shortcut { tensor: parts.layers[layer].reads, ..*shortcut(parts, 2) };
    parts.layers[layer].shortcut = Some(shortcut);
}

/// Gives the first convolution one rounding with this shift.
fn once(parts: &mut Parts<'_>, shift: u8) {
    conv2d(parts, 0).requantize.rounding = format::Rounding::Once { shift };
}

fn pool2d<'p>(parts: &'p mut Parts<'_>) -> &'p mut Pool2d {
    match &mut parts.layers[8].operation {
        Operation::Pool2d(record) => record,
        other => panic!("{other:?}"),
    }
}

fn global_average_pool<'p>(parts: &'p mut Parts<'_>) -> &'p mut GlobalAveragePool {
    match &mut parts.layers[9].operation {
        Operation::GlobalAveragePool(record) => record,
        other => panic!("{other:?}"),
    }
}

fn dense<'p>(parts: &'p mut Parts<'_>) -> &'p mut Dense {
    match &mut parts.layers[10].operation {
        Operation::Dense(record) => record,
        other => panic!("{other:?}"),
    }
}

fn scale(parts: &mut Parts<'_>, value: f32) {
    let scales = parts.section(&[1.0, value, 1.0]);
    dense(parts).finish = Finish::Scores { scales, count: 3 };
}

/// What one step of a layer's values stands for.
fn step(parts: &mut Parts<'_>, layer: usize, scale: f32) {
    parts.layers[layer].quantization.scale = scale;
}

fn labels(parts: &mut Parts<'_>, labels: &[u8]) {
    parts.manifest.labels = parts.section(labels);
    parts.manifest.labels_len = labels.len() as u32;
}

fn segments(parts: &mut Parts<'_>, segments: &[u8]) {
    parts.manifest.rows.segments = parts.section(segments);
    parts.manifest.rows.segment_count = segments.len() as u16;
}
