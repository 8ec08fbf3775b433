//! Blobs damaged at random, the checksum repaired: they are refused or run to an end, and never panic.

use std::collections::BTreeMap;

use skipstone::error::{ParseError, RunError, SetUpError};
use skipstone::host::format::{self, Addition, Finish, HEADER_BYTES, Header, Operation};
use skipstone::host::{Algorithm, Clamp, Conv2d, Requantize, Window, Windowed};
use skipstone::{Model, Network, Shape};

use crate::memory::Memory;
use crate::networks;
use crate::parts::{Parts, assemble, repaired};
use crate::random::Random;

/// What a board may give: larger plans are refused.
const ARENA: usize = 64 * 1024;

/// How far a blob comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    NotParsed,
    NotSetUp,
    Ran,
}

/// Everything that firmware may do with a blob.
fn exercise(blob: &[u8]) -> Fate {
    exercise_but(blob, true)
}

/// The same, with or without the runs themselves.
fn exercise_but(blob: &[u8], run: bool) -> Fate {
    let Ok(model) = Model::parse(blob) else { return Fate::NotParsed };
    assert!(model.labels().count() == 0 || model.labels().count() == model.classes());
    assert_eq!(model.label(model.classes()), None);
    assert_eq!(model.layers().filter(Result::is_err).count(), 0);
    assert_ne!(model.macs(), u64::MAX);

    let mut memory = Memory::new(ARENA);
    let fed = match Network::<48>::new(model, memory.bytes()) {
        Ok(_) if !run => true,
        Ok(mut network) => {
            let mut next = 0;
            let scores = network.run_rows(|row, buffer| {
                assert_eq!(row, next);
                next += 1;
                buffer.fill(row as u8);
            });
            let scores = scores.unwrap();
            assert_eq!(scores.values().len(), model.classes());
            assert!(scores.top::<3>().len() <= 3);
            check_outputs(&network);
            let wrong = vec![0; model.input().len() + 1];
            let (needed, given) = (wrong.len() - 1, wrong.len());
            assert_eq!(network.run(&wrong).err(), Some(RunError::Input { needed, given }));
            true
        }
        Err(error) => refused(error),
    };
    let mut memory = Memory::new(ARENA);
    let framed = match Network::<48>::with_frame(model, memory.bytes()) {
        Ok(_) if !run => true,
        Ok(mut network) => {
            assert_eq!(network.input_mut().len(), model.input().len());
            network.input_mut().fill(77);
            assert_eq!(network.run_frame().unwrap().values().len(), model.classes());
            check_outputs(&network);
            true
        }
        Err(error) => refused(error),
    };
    if fed && framed { Fate::Ran } else { Fate::NotSetUp }
}

/// Every output is there, in full.
fn check_outputs(network: &Network<'_, 48>) {
    assert!((1..=format::MAX_OUTPUTS).contains(&network.outputs().count()));
    for output in network.outputs() {
        let len = output.shape().len();
        assert_eq!(output.real().count(), len);
        let lens = [output.scores().map(|scores| scores.values().len()), output.values().map(<[i8]>::len)];
        assert!(lens == [Some(len), None] || lens == [None, Some(len)], "{lens:?} of {len}");
    }
}

/// The reasons for which a parsed blob may be refused.
fn refused(error: SetUpError) -> bool {
    assert!(
        matches!(
            error,
            SetUpError::Arena { .. }
                | SetUpError::Plan { .. }
                | SetUpError::Rows { .. }
                | SetUpError::Tensors { .. }
        ),
        "{error}"
    );
    false
}

/// Every bit of the example blobs' headers and manifests, and some of their weights, flipped: the checksum
/// refuses it; were it the right one, the blob is refused or runs to an end.
#[test]
fn flipped_bits_of_the_examples() {
    // of the larger network's blobs that are set up, some run
    let examples: [(&[u8], usize); 2] = [
        (skipstone::include_model!("../../models/digits.skip"), 1),
        (skipstone::include_model!("../../models/cifar10-resnet8.skip"), 64),
    ];
    for (good, each) in examples {
        assert_eq!(exercise(good), Fate::Ran);
        let manifest = HEADER_BYTES + Header::read(good).unwrap().manifest_bytes as usize;
        let records = (0..8 * manifest).collect::<Vec<_>>();
        let weights = (8 * manifest..8 * good.len()).step_by(8 * good.len() / 150);
        let (mut memory, mut fates) = (Memory::new(good.len()), BTreeMap::new());
        let blob = memory.bytes();
        blob.copy_from_slice(good);
        for (index, bit) in records.into_iter().chain(weights).enumerate() {
            blob[bit / 8] ^= 1 << (bit % 8);
            assert!(Model::parse(blob).is_err(), "bit {bit} is not missed");
            let repaired = repaired(blob.to_vec());
            *fates.entry(exercise_but(&repaired, index % each == 0)).or_insert(0) += 1;
            blob[bit / 8] ^= 1 << (bit % 8);
        }
        println!("{fates:?}");
        assert_eq!(fates.len(), 3, "blobs of every fate");
    }
}

/// A blob that changes under its model, as worn flash does.
#[test]
fn verification_finds_what_has_changed() {
    let good = networks::planned(&networks::small());
    let len = good.len();
    let memory = Box::leak(Box::new(Memory::new(len))).bytes();
    memory.copy_from_slice(&good);
    let first: *mut u8 = memory.as_mut_ptr();
    // SAFETY: both are this test's own memory. The test is about bytes that change while a shared slice refers to them.
    #[allow(unsafe_code)]
    let (blob, flip) = unsafe {
        let flip = |at: usize, bit: u8| first.add(at).write_volatile(first.add(at).read_volatile() ^ bit);
        (core::slice::from_raw_parts(first, len), flip)
    };
    let model = Model::parse(blob).unwrap();
    assert_eq!(model.verify(), Ok(()));
    for at in 0..len {
        flip(at, 1 << (at % 8));
        assert!(matches!(model.verify(), Err(ParseError::Checksum { .. })), "byte {at}");
        flip(at, 1 << (at % 8));
    }
    assert_eq!(model.verify(), Ok(()));
}

/// Bytes of the header, the manifest and the weights, changed, left out and put in.
#[test]
fn damaged_bytes() {
    let mut fates = BTreeMap::new();
    for seed in 7000..7040 {
        let blob = networks::planned(&networks::network(seed));
        let parts = Parts::of(&blob);
        let records = parts.records();
        let random = &mut Random::new(!seed);
        for _ in 0..500 {
            // mostly where it matters: in the manifest
            let mut manifest = records.clone();
            let mut weights = parts.weights.clone();
            for _ in 0..random.size(1, 3) {
                let bytes = if random.one_in(8) { &mut weights } else { &mut manifest };
                let at = random.size(0, bytes.len() - 1);
                match random.size(0, 9) {
                    0 => drop(bytes.remove(at)),
                    1 => bytes.insert(at, random.int8() as u8),
                    2 | 3 => bytes[at] ^= 1 << random.size(0, 7),
                    4 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.size(0, 4)],
                    5 | 6 => bytes[at] = bytes[at].wrapping_add_signed(random.between(-2, 2) as i8),
                    _ => bytes[at] = random.int8() as u8,
                }
            }
            let mut blob = assemble(&parts.header, &manifest, &weights);
            if random.one_in(20) {
                let mut bytes = blob.to_vec();
                let at = random.size(4, HEADER_BYTES - 1);
                bytes[at] = bytes[at].wrapping_add_signed(random.between(-2, 2) as i8);
                blob = repaired(bytes);
            }
            *fates.entry(exercise(&blob)).or_insert(0) += 1;
        }
    }
    check_fates(&fates);
}

/// Fields of the records set to the ends of their ranges, and just beyond them.
#[test]
fn damaged_records() {
    let mut fates = BTreeMap::new();
    for seed in 8000..8040 {
        let blob = networks::planned(&networks::network(seed));
        let random = &mut Random::new(!seed);
        for _ in 0..500 {
            let mut parts = Parts::of(&blob);
            for _ in 0..random.size(1, 2) {
                damage(&mut parts, random);
            }
            *fates.entry(exercise(&parts.blob())).or_insert(0) += 1;
        }
    }
    check_fates(&fates);
}

/// Weights that no tool writes: -128, transformed words of any value, bytes where packed weights have none. Sums
/// wrap; nothing else happens.
#[test]
fn weights_of_any_value() {
    use Algorithm::{Direct, Reference, Winograd, Winograd4, Winograd4AtRunTime, WinogradAtRunTime};
    let algorithms = [Reference, Direct, Winograd, WinogradAtRunTime, Winograd4, Winograd4AtRunTime];
    let requantize = Requantize::new(&[i32::MAX; 4], 40, Clamp::none(3)).unwrap();
    for (seed, algorithm) in (0..20).flat_map(|seed| algorithms.map(|algorithm| (seed, algorithm))) {
        let random = &mut Random::new(seed);
        let (input, window) = (Shape::new(9, 9, 16), Window::square(3, random.size(1, 2) as u8, 1));
        let bytes = Conv2d::weight_bytes(&window, input, 4, false, algorithm);
        let mut weights = vec![0u32; bytes.div_ceil(4)];
        bytemuck::cast_slice_mut(&mut weights).copy_from_slice(&random.int8s(bytes));
        let pixels = random.int8s(input.len());
        let weights = bytemuck::cast_slice(&weights);
        let layer = Conv2d::with_algorithm(input, window, algorithm, weights, &[-5; 4], &[7; 16], requantize);
        let Ok(layer) = layer.map(Windowed::Conv2d) else { continue };
        let run = |fill: i8| {
            let mut output = vec![0; layer.output().len()];
            layer.run(&pixels, &mut vec![fill; layer.scratch_len()], &mut output).unwrap();
            output
        };
        assert_eq!(run(0), run(0x5A), "seed {seed}, {algorithm:?}: what was in the scratch memory shows");
    }
}

/// Blobs of every fate, else the test sees only one line of the code.
fn check_fates(fates: &BTreeMap<Fate, usize>) {
    println!("{fates:?}");
    for (fate, least) in [(Fate::NotParsed, 1000), (Fate::NotSetUp, 100), (Fate::Ran, 1000)] {
        assert!(fates.get(&fate).is_some_and(|count| *count >= least), "{fates:?}");
    }
}

fn byte(random: &mut Random) -> u8 {
    [0, 1, 2, 3, 7, 8, 127, 128, 255][random.size(0, 8)]
}

fn number(random: &mut Random) -> u16 {
    let ends = [0, 1, 2, 255, 256, 4095, 32767, 32768, 65534, 65535];
    if random.one_in(2) { ends[random.size(0, 9)] } else { random.size(1, 300) as u16 }
}

fn offset(random: &mut Random, weights: usize) -> u32 {
    let len = weights as u32;
    let ends = [0, 1, 2, 4, len.saturating_sub(4), len, len + 4, u32::MAX / 2, u32::MAX - 3, u32::MAX];
    if random.one_in(2) { ends[random.size(0, 9)] } else { random.size(0, weights / 4) as u32 * 4 }
}

/// Sets one field.
fn damage(parts: &mut Parts<'_>, random: &mut Random) {
    let weights = parts.weights.len();
    let Some(last) = parts.layers.len().checked_sub(1) else { return };
    let layer = random.size(0, last);
    match random.size(0, 9) {
        0 => {
            let format::Shape(height, width, channels) = &mut parts.manifest.input;
            *[height, width, channels][random.size(0, 2)] = number(random);
        }
        1 => {
            let frame = random.one_in(2);
            let plan = parts.plan(frame);
            match random.size(0, 6) {
                0 => *parts.arena_bytes(frame) = offset(random, weights),
                1 => plan.rows = offset(random, weights),
                2 => plan.strips = offset(random, weights),
                3 => plan.segments = offset(random, weights),
                4 => plan.row_count = number(random).into(),
                5 => parts.header.tensors = number(random),
                _ => plan.segment_count = number(random),
            }
        }
        2 => {
            // strips of their own, so that the weights stay
            let frame = random.one_in(2);
            let layers = weights.min(200);
            let strips = parts.section(&vec![random.size(1, 9) as u8; layers]);
            parts.plan(frame).strips = strips;
        }
        3 => parts.manifest.labels_len = u32::from(number(random)),
        4 => {
            parts.layers.remove(layer);
            parts.manifest.layers = parts.layers.len() as u16;
        }
        5 => {
            let copy = parts.layers[layer];
            parts.layers.insert(layer, copy);
            parts.manifest.layers += 1;
        }
        6 => connection(&mut parts.layers[layer], random),
        _ => operation(&mut parts.layers[layer].operation, random, weights),
    }
}

/// Changes what a layer reads, adds or gives.
fn connection(layer: &mut format::Layer<'_>, random: &mut Random) {
    let tensor =
        |random: &mut Random| if random.one_in(2) { number(random) } else { random.size(0, 12) as u16 };
    match (random.size(0, 8), &mut layer.shortcut) {
        (0, _) => layer.reads = tensor(random),
        (1, _) => layer.output = None,
        (2, _) => layer.output = Some(format::Output { name: "more", softmax: format::Softmax::None }),
        (3, Some(shortcut)) => shortcut.tensor = tensor(random),
        (4, Some(shortcut)) => shortcut.stride[random.size(0, 1)] = byte(random),
        (5, Some(shortcut)) => shortcut.channels_before = number(random),
        (6, shortcut @ Some(_)) => *shortcut = None,
        (_, Some(shortcut)) => {
            let multiplier = [0, -1, i32::MAX, i32::MIN][random.size(0, 3)];
            match &mut shortcut.addition {
                Addition::Fused { shift, .. } if random.one_in(2) => *shift = byte(random),
                Addition::Fused { multiplier: field, .. } => *field = multiplier,
                Addition::Separate { output, .. } if random.one_in(2) => {
                    output.1 = byte(random).cast_signed()
                }
                Addition::Separate { path, .. } => path.0 = multiplier,
            }
        }
        (3, None) => {
            layer.quantization.scale = [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-30][random.size(0, 4)]
        }
        (_, None) => {
            let addition = Addition::Fused { zero_point: 3, multiplier: 1 << 20, shift: 0 };
            let tensor = tensor(random);
            layer.shortcut = Some(format::Shortcut { tensor, stride: [1; 2], channels_before: 0, addition });
        }
    }
}

fn operation(operation: &mut Operation, random: &mut Random, weights: usize) {
    match operation {
        Operation::Conv2d(record) => conv2d(record, random, weights),
        Operation::Pool2d(record) => window(&mut record.window, random),
        Operation::Dense(record) => match random.size(0, 3) {
            0 => record.outputs = number(random),
            1 => record.weights = offset(random, weights),
            2 => record.bias = offset(random, weights),
            _ => finish(&mut record.finish, random, weights),
        },
        Operation::GlobalAveragePool(record) => match random.size(0, 1) {
            0 => record.zero_point = byte(random).cast_signed(),
            _ => finish(&mut record.finish, random, weights),
        },
    }
}

fn conv2d(record: &mut format::Conv2d, random: &mut Random, weights: usize) {
    match random.size(0, 9) {
        0 => record.channels = number(random),
        1 => record.depthwise ^= true,
        2 => record.weights = offset(random, weights),
        3 => record.bias = offset(random, weights),
        4 => record.padding_pixel = offset(random, weights),
        5 => record.algorithm = byte(random),
        6..=8 => requantize(&mut record.requantize, random, weights),
        _ => window(&mut record.window, random),
    }
}

fn requantize(record: &mut format::Requantize, random: &mut Random, weights: usize) {
    match (random.size(0, 2), &mut record.rounding) {
        (0, _) => record.multipliers = offset(random, weights),
        (1, _) => record.clamp.min = byte(random).cast_signed(),
        (_, format::Rounding::Once { shift }) => *shift = byte(random),
        (_, format::Rounding::Twice { shifts }) => *shifts = offset(random, weights),
    }
}

fn window(format::Window([a, b], [c, d], [e, f, g, h]): &mut format::Window, random: &mut Random) {
    *[a, b, c, d, e, f, g, h][random.size(0, 7)] = byte(random);
}

fn finish(finish: &mut Finish, random: &mut Random, weights: usize) {
    match finish {
        Finish::Scores { scales, count } => match random.size(0, 1) {
            0 => *scales = offset(random, weights),
            _ => *count = number(random),
        },
        Finish::Requantize { count, requantize: record }
        | Finish::RoundedScores { count, requantize: record, .. } => match random.size(0, 2) {
            0 => *count = number(random),
            _ => requantize(record, random, weights),
        },
        Finish::Mean { clamp } => clamp.max = byte(random).cast_signed(),
    }
}
