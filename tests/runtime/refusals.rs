//! Blobs that `Model::parse` refuses, each with the precise error.

use skipstone::schema::{self, Block, Conv2d, Dense, Finish, GlobalAveragePool, Operation, Pool2d, Shortcut};
use skipstone::{
    Addition, HEADER_BYTES, Kernels, LayerError, Model, ParseError, Residual, Shape, Softmax, VERSION,
    WEIGHTS_ALIGN,
};
use skipstone_tools::blob::Blob;

use crate::networks;
use crate::parts::{Parts, assemble, repaired};

/// The error of a blob; `None` where it parses.
fn error(blob: &[u8]) -> Option<ParseError> {
    Model::parse(blob).err()
}

/// The small network's blob.
fn good() -> Blob {
    networks::planned(networks::small())
}

#[test]
fn the_good_blob_parses() {
    let blob = good();
    let model = Model::parse(&blob).unwrap();
    assert_eq!((model.name(), model.input()), ("random", Shape::new(8, 8, 2)));
    assert_eq!((model.classes(), model.softmax(), model.blob_bytes()), (3, Softmax::Float, blob.len()));
    assert_eq!(model.labels().collect::<Vec<_>>(), ["cat", "dog", "ship"]);
    assert_eq!((model.label(2), model.label(3)), (Some("ship"), None));
    assert_eq!(model.stages().count(), 7);
    for entry in model.stages() {
        assert!(entry.unwrap().record.name.starts_with("stage "));
    }
    // taken apart and put together it is the same, but for the kernels, of which it then names all
    let again = Parts::of(&blob).blob();
    assert_eq!((&again[..6], &again[16..]), (&blob[..6], &blob[16..]));
    assert_eq!(model.kernels(), Kernels::REFERENCE | Kernels::POOLING);
}

/// A whole flash slot may be given: what lies behind the blob is ignored.
#[test]
fn bytes_behind_the_blob_are_ignored() {
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
fn at_an_address_that_is_no_multiple_of_four() {
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
    let (stored, len) = (skipstone::checksum(&good), good.len());
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
                    let computed = skipstone::checksum(&bytes[..total]);
                    ParseError::Checksum { stored, computed }
                }
                12..16 => {
                    ParseError::Checksum { stored: stored ^ 1 << ((byte - 12) * 8 + bit), computed: stored }
                }
                _ => ParseError::Checksum { stored, computed: skipstone::checksum(&bytes) },
            };
            assert_eq!(error(&blob), Some(expected), "byte {byte}, bit {bit}");
        }
    }
}

#[test]
fn other_versions_are_refused_by_number() {
    let old = [&include_bytes!("../data/version-1.skip")[..], include_bytes!("../data/version-2.skip")];
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
    use skipstone::Algorithm;
    let blob = good();
    let algorithms =
        [Algorithm::Reference, Algorithm::Direct, Algorithm::Winograd, Algorithm::WinogradAtRunTime];
    for algorithm in algorithms {
        for kernel in [[0, 0], [0, 3], [3, 0], [3, 3], [15, 15], [16, 1], [255, 255]] {
            for (stride, channels) in [([0, 0], 4), ([1, 1], 0), ([2, 2], u16::MAX), ([255, 1], 4)] {
                let mut parts = Parts::of(&blob);
                let record = conv2d(&mut parts);
                (record.algorithm, record.channels) = (algorithm, channels);
                (record.window.kernel, record.window.stride) = (kernel, stride);
                assert!(error(&parts.blob()).is_some(), "{algorithm:?}, {kernel:?}, {stride:?}, {channels}");
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
        assert_eq!(word(16, manifest_len), header, "a manifest of {manifest_len} bytes");
    }

    // a blob that says to be shorter than its header, or than its manifest
    let manifest_end = HEADER_BYTES + Parts::of(&good).records().len();
    for total in (0..HEADER_BYTES).chain([HEADER_BYTES, manifest_end - 1]) {
        let mut bytes = good.to_vec();
        bytes[8..12].copy_from_slice(&(total as u32).to_le_bytes());
        let crc = skipstone::checksum(&bytes[..total]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(error(&Blob::from(&bytes[..])), header, "{total} bytes");
    }

    // padding before the weights that is not zero
    let mut network = networks::small();
    let blob = loop {
        let blob = networks::planned(network.clone());
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
    let manifest = |bytes: &[u8]| error(&assemble(bytes, &parts.weights));
    assert_eq!(manifest(&records), None);
    assert_eq!(manifest(&[]), Some(ParseError::Manifest));
    assert_eq!(manifest(&[0xff; 100]), Some(ParseError::Manifest));
    assert_eq!(manifest(&[&records[..], &[0]].concat()), Some(ParseError::Manifest), "a byte too many");
    let mut not_utf8 = records.clone();
    not_utf8[1] = 0xff;
    assert_eq!(manifest(&not_utf8), Some(ParseError::Manifest), "a name that is not UTF-8");
    for len in 0..records.len() {
        let error = manifest(&records[..len]);
        assert!(matches!(error, Some(ParseError::Manifest | ParseError::Stage { .. })), "{len}: {error:?}");
    }
}

/// Changes of one thing each in a good blob, and the errors that they lead to.
#[test]
fn changed_records() {
    type Case = (&'static str, fn(&mut Parts<'_>), ParseError);
    const OUTSIDE: u32 = 1 << 24;
    let section = |stage, offset, length| ParseError::Section { stage, offset, length };
    let layer = |stage, error| ParseError::Layer { stage, error };
    let length = |needed, given| LayerError::Length { needed, given };
    let cases: &[Case] = &[
        // the manifest
        ("no stages", |parts| parts.manifest.stages = 0, ParseError::Manifest),
        ("a stage less than there are", |parts| parts.manifest.stages -= 1, ParseError::Output { stage: 5 }),
        ("a stage more than there are", |parts| parts.manifest.stages += 1, ParseError::Stage { stage: 7 }),
        ("an input without rows", |parts| parts.manifest.input.height = 0, ParseError::Manifest),
        ("an input without pixels", |parts| parts.manifest.input.width = 0, ParseError::Manifest),
        ("an input without channels", |parts| parts.manifest.input.channels = 0, ParseError::Manifest),
        // sections
        ("weights outside", |parts| conv2d(parts).weights = OUTSIDE, section(0, OUTSIDE, 72)),
        ("weights at the end of it all", |parts| conv2d(parts).weights = !3, section(0, !3, 72)),
        ("weights between words", |parts| conv2d(parts).weights = 1, section(0, 1, 72)),
        ("bias outside", |parts| conv2d(parts).bias = OUTSIDE, section(0, OUTSIDE, 16)),
        ("bias between words", |parts| conv2d(parts).bias = 2, section(0, 2, 16)),
        (
            "multipliers outside",
            |parts| conv2d(parts).requantize.multipliers = OUTSIDE,
            section(0, OUTSIDE, 16),
        ),
        ("multipliers between words", |parts| conv2d(parts).requantize.multipliers = 6, section(0, 6, 16)),
        ("padding pixel outside", |parts| conv2d(parts).padding_pixel = OUTSIDE, section(0, OUTSIDE, 2)),
        ("a path's weights outside", |parts| block(parts, 1).path[0].bias = OUTSIDE, {
            let channels = usize::from(block(&mut Parts::of(&good()), 1).path[0].channels);
            section(1, OUTSIDE, 4 * channels)
        }),
        ("a projection's bias outside", |parts| projection(parts).bias = OUTSIDE, {
            let channels = usize::from(projection(&mut Parts::of(&good())).channels);
            section(2, OUTSIDE, 4 * channels)
        }),
        ("dense weights outside", |parts| dense(parts).weights = OUTSIDE, {
            let blob = good();
            let inputs = Model::parse(&blob).unwrap().stages().last().unwrap().unwrap().stage.input().len();
            section(6, OUTSIDE, 3 * inputs)
        }),
        ("dense bias outside", |parts| dense(parts).bias = OUTSIDE, section(6, OUTSIDE, 12)),
        (
            "scales outside",
            |parts| dense(parts).finish = Finish::Scores { scales: OUTSIDE, count: 3 },
            section(6, OUTSIDE, 12),
        ),
        // a convolution
        ("no channels", |parts| conv2d(parts).channels = 0, layer(0, LayerError::Geometry)),
        ("kernel of no rows", |parts| conv2d(parts).window.kernel[0] = 0, layer(0, LayerError::Geometry)),
        (
            "kernel of 16 columns",
            |parts| conv2d(parts).window.kernel = [1, 16],
            layer(0, LayerError::Geometry),
        ),
        ("no stride", |parts| conv2d(parts).window.stride[1] = 0, layer(0, LayerError::Geometry)),
        ("stride of 8", |parts| conv2d(parts).window.stride[0] = 8, layer(0, LayerError::Geometry)),
        (
            "padding as large as the kernel",
            |parts| conv2d(parts).window.padding[2] = 3,
            layer(0, LayerError::Geometry),
        ),
        (
            "a window larger than the input",
            |parts| {
                conv2d(parts).window = skipstone::Window::square(7, 1, 0);
                parts.manifest.input.height = 6;
            },
            layer(0, LayerError::Geometry),
        ),
        ("depthwise with other channels", |parts| conv2d(parts).depthwise = true, layer(0, length(2, 4))),
        ("shift of 0", |parts| once(parts, 0), layer(0, LayerError::Requantization)),
        ("shift of 57", |parts| once(parts, 57), layer(0, LayerError::Requantization)),
        (
            "clamp above its zero point",
            |parts| {
                conv2d(parts).requantize.clamp = skipstone::Clamp { zero_point: 0, min: 1, max: 5 };
            },
            layer(0, LayerError::Requantization),
        ),
        (
            "clamp below its zero point",
            |parts| {
                conv2d(parts).requantize.clamp = skipstone::Clamp { zero_point: 0, min: -5, max: -1 };
            },
            layer(0, LayerError::Requantization),
        ),
        (
            "a negative multiplier",
            |parts| {
                let multipliers = parts.section(&[1, 2, -3, 4]);
                conv2d(parts).requantize.multipliers = multipliers;
            },
            layer(0, LayerError::Requantization),
        ),
        (
            "a sum that could leave 32 bits",
            |parts| {
                let bias = parts.section(&[0, i32::MAX - 18 * 128 * 128, i32::MAX - 18 * 128 * 128 + 1, 0]);
                conv2d(parts).bias = bias;
            },
            layer(0, LayerError::Accumulator { channel: 2 }),
        ),
        (
            "the most negative bias",
            |parts| {
                let bias = parts.section(&[i32::MIN, 0, 0, 0]);
                conv2d(parts).bias = bias;
            },
            layer(0, LayerError::Accumulator { channel: 0 }),
        ),
        // shapes that do not follow each other
        ("other channels before a block", |parts| conv2d(parts).channels = 3, layer(1, LayerError::Block)),
        (
            "a block changes its input's channels",
            |parts| {
                block(parts, 1).path.last_mut().unwrap().channels = 3;
            },
            layer(1, LayerError::Block),
        ),
        (
            "a pooling window larger than its input",
            |parts| {
                pool2d(parts).window = skipstone::Window::square(7, 1, 0);
            },
            layer(4, LayerError::Geometry),
        ),
        // blocks
        ("a path of one convolution", |parts| block(parts, 1).path.truncate(1), layer(1, LayerError::Block)),
        (
            "an identity that shrinks",
            |parts| block(parts, 3).shortcut = Shortcut::Identity,
            layer(3, LayerError::Block),
        ),
        (
            "a negative residual",
            |parts| residual(parts).multiplier = -1,
            layer(1, LayerError::Requantization),
        ),
        ("a residual shift of 21", |parts| residual(parts).shift = 21, layer(1, LayerError::Requantization)),
        ("a subsampling without stride", |parts| subsample(parts).stride[0] = 0, layer(3, LayerError::Block)),
        (
            "a subsampling of too many channels",
            |parts| subsample(parts).channels_before = u16::MAX,
            layer(3, LayerError::Block),
        ),
        // reductions
        ("a dense layer without outputs", |parts| dense(parts).outputs = 0, layer(6, LayerError::Geometry)),
        (
            "two scales for three classes",
            |parts| {
                let scales = parts.section(&[1.0f32; 2]);
                dense(parts).finish = Finish::Scores { scales, count: 2 };
            },
            layer(6, length(3, 2)),
        ),
        (
            "no scales",
            |parts| dense(parts).finish = Finish::Scores { scales: 0, count: 0 },
            layer(6, length(3, 0)),
        ),
        (
            "a scale that is not a number",
            |parts| scale(parts, f32::NAN),
            layer(6, LayerError::Requantization),
        ),
        ("an infinite scale", |parts| scale(parts, f32::INFINITY), layer(6, LayerError::Requantization)),
        ("a scale of zero", |parts| scale(parts, 0.0), layer(6, LayerError::Requantization)),
        ("a negative scale", |parts| scale(parts, -1.0), layer(6, LayerError::Requantization)),
        ("a scale of infinite scores", |parts| scale(parts, 1e30), layer(6, LayerError::Requantization)),
        (
            "a convolution whose step is not a number",
            |parts| conv2d(parts).scale = f32::NAN,
            layer(0, LayerError::Requantization),
        ),
        (
            "a block whose step is negative",
            |parts| block(parts, 1).scale = -1.0,
            layer(1, LayerError::Requantization),
        ),
        // the order of stages
        (
            "scores in the middle",
            |parts| {
                let scales = parts.section(&[1.0f32]);
                global_average_pool(parts).finish = Finish::Scores { scales, count: 1 };
            },
            ParseError::Output { stage: 6 },
        ),
        (
            "no scores at the end",
            |parts| {
                let multipliers = parts.section(&[1i32]);
                let clamp = skipstone::Clamp::none(0);
                dense(parts).finish = Finish::Requantize {
                    count: 1,
                    requantize: schema::Requantize {
                        multipliers,
                        rounding: schema::Rounding::Once { shift: 9 },
                        clamp,
                    },
                    scale: 1.0,
                };
            },
            ParseError::Output { stage: 6 },
        ),
        // labels
        ("a label too few", |parts| labels(parts, b"cat\0dog\0"), ParseError::Labels),
        ("a label too many", |parts| labels(parts, b"cat\0dog\0ship\0frog\0"), ParseError::Labels),
        ("a label without its end", |parts| labels(parts, b"cat\0dog\0ship"), ParseError::Labels),
        ("bytes behind the labels", |parts| labels(parts, b"cat\0dog\0ship\0frog"), ParseError::Labels),
        ("labels that are not UTF-8", |parts| labels(parts, b"cat\0d\xffg\0ship\0"), ParseError::Labels),
        ("labels that are only an end", |parts| labels(parts, b"\0"), ParseError::Labels),
        ("labels outside", |parts| parts.manifest.labels = OUTSIDE, ParseError::Labels),
        ("endless labels", |parts| parts.manifest.labels_len = u32::MAX, ParseError::Labels),
        // plans
        ("a row table outside", |parts| parts.manifest.rows.rows = OUTSIDE, ParseError::Plan),
        ("a frame's row table outside", |parts| parts.manifest.frame.rows = OUTSIDE, ParseError::Plan),
        ("a row table between words", |parts| parts.manifest.rows.rows = 1, ParseError::Plan),
        ("strips outside", |parts| parts.manifest.rows.strips = OUTSIDE, ParseError::Plan),
        (
            "a strip of no rows",
            |parts| {
                let strips = parts.section(&[0u8; 40]);
                parts.manifest.frame.strips = strips;
            },
            ParseError::Plan,
        ),
        ("segments outside", |parts| parts.manifest.frame.segments = OUTSIDE, ParseError::Plan),
        ("no segments", |parts| parts.manifest.rows.segment_count = 0, ParseError::Plan),
        ("a segment too many", |parts| segments(parts, &[6, 1, 1]), ParseError::Plan),
        ("a stage in no segment", |parts| segments(parts, &[6]), ParseError::Plan),
        ("a segment without stages", |parts| segments(parts, &[6, 0, 1]), ParseError::Plan),
        ("endless segments", |parts| parts.manifest.rows.segment_count = u16::MAX, ParseError::Plan),
    ];
    let good = good();
    for (what, change, expected) in cases {
        let mut parts = Parts::of(&good);
        change(&mut parts);
        assert_eq!(error(&parts.blob()), Some(*expected), "{what}");
    }
}

/// A record whose operation, shortcut or number of convolutions is not one that this version knows.
#[test]
fn records_of_an_unknown_kind() {
    let good = good();
    let parts = Parts::of(&good);
    // the record of stage 4: its name's length, its name, its operation's number
    let before = Parts { stages: parts.stages[..4].to_vec(), ..parts.clone() }.records().len();
    let mut records = parts.records();
    let operation = before + 1 + parts.stages[4].name.len();
    assert_eq!(records[operation], 1, "pooling is operation 1");
    records[operation] = 5;
    assert_eq!(error(&assemble(&records, &parts.weights)), Some(ParseError::Stage { stage: 4 }));
}

fn conv2d<'p>(parts: &'p mut Parts<'_>) -> &'p mut Conv2d {
    match &mut parts.stages[0].operation {
        Operation::Conv2d(record) => record,
        other => panic!("{other:?}"),
    }
}

fn block<'p>(parts: &'p mut Parts<'_>, stage: usize) -> &'p mut Block {
    match &mut parts.stages[stage].operation {
        Operation::Block(record) => record,
        other => panic!("{other:?}"),
    }
}

/// How the identity block adds its shortcut.
fn residual<'p>(parts: &'p mut Parts<'_>) -> &'p mut Residual {
    match &mut block(parts, 1).addition {
        Addition::Fused(residual) => residual,
        other => panic!("{other:?}"),
    }
}

/// Gives the first convolution one rounding with this shift.
fn once(parts: &mut Parts<'_>, shift: u8) {
    conv2d(parts).requantize.rounding = schema::Rounding::Once { shift };
}

fn projection<'p>(parts: &'p mut Parts<'_>) -> &'p mut Conv2d {
    match &mut block(parts, 2).shortcut {
        Shortcut::Projection(record) => record,
        other => panic!("{other:?}"),
    }
}

fn subsample<'p>(parts: &'p mut Parts<'_>) -> &'p mut skipstone::Subsample {
    match &mut block(parts, 3).shortcut {
        Shortcut::Padded(record) => record,
        other => panic!("{other:?}"),
    }
}

fn pool2d<'p>(parts: &'p mut Parts<'_>) -> &'p mut Pool2d {
    match &mut parts.stages[4].operation {
        Operation::Pool2d(record) => record,
        other => panic!("{other:?}"),
    }
}

fn global_average_pool<'p>(parts: &'p mut Parts<'_>) -> &'p mut GlobalAveragePool {
    match &mut parts.stages[5].operation {
        Operation::GlobalAveragePool(record) => record,
        other => panic!("{other:?}"),
    }
}

fn dense<'p>(parts: &'p mut Parts<'_>) -> &'p mut Dense {
    match &mut parts.stages[6].operation {
        Operation::Dense(record) => record,
        other => panic!("{other:?}"),
    }
}

fn scale(parts: &mut Parts<'_>, value: f32) {
    let scales = parts.section(&[1.0, value, 1.0]);
    dense(parts).finish = Finish::Scores { scales, count: 3 };
}

fn labels(parts: &mut Parts<'_>, labels: &[u8]) {
    parts.manifest.labels = parts.section(labels);
    parts.manifest.labels_len = labels.len() as u32;
}

fn segments(parts: &mut Parts<'_>, segments: &[u8]) {
    parts.manifest.rows.segments = parts.section(segments);
    parts.manifest.rows.segment_count = segments.len() as u16;
}
