//! Pickles that are made up here: what attackers write, what is damaged, what must not grow.

use super::*;
use crate::front::error::ErrorKind;
use crate::front::graph::Data;

/// A pickle of protocol 2 of these parts.
fn pickle(parts: &[&[u8]]) -> Vec<u8> {
    [b"\x80\x02", parts.concat().as_slice(), b"."].concat()
}

/// A legacy checkpoint that holds such a pickle, and storages of these keys and elements of f32.
fn legacy(parts: &[&[u8]], storages: &[(&str, &[f32])]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let mut bytes = [&magic[..], b"\x80\x02M\xe9\x03.", b"\x80\x02}."].concat();
    bytes.extend(pickle(parts));
    let keys: Vec<Vec<u8>> = storages.iter().map(|(key, _)| [text(key), b"a".to_vec()].concat()).collect();
    bytes.extend(pickle(&[b"]", &keys.concat()]));
    for (_, elements) in storages {
        bytes.extend((elements.len() as u64).to_le_bytes());
        bytes.extend(elements.iter().flat_map(|element| element.to_le_bytes()));
    }
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn integers(values: &[u32]) -> Vec<u8> {
    let each = values.iter().flat_map(|value| [b"J", &value.to_le_bytes()[..]].concat());
    [b"(".to_vec(), each.collect(), b"t".to_vec()].concat()
}

/// A tensor over a storage of some class, key and length.
fn tensor(class: &str, storage: (&str, u32), offset: u32, sizes: &[u32], strides: &[u32]) -> Vec<u8> {
    let (key, length) = storage;
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        format!("c{}\n", class.replace('.', "\n")).into_bytes(),
        text(key),
        text("cpu"),
        [b"J", &length.to_le_bytes()[..]].concat(),
        b"tQJ".to_vec(),
        offset.to_le_bytes().to_vec(),
        integers(sizes),
        integers(strides),
        b"\x89NtR".to_vec(),
    ]
    .concat()
}

/// A dictionary that holds a tensor `w` and what else is given, key and value.
fn dict(tensor: &[u8], rest: &[u8]) -> Vec<u8> {
    [b"}(", &text("w")[..], tensor, rest, b"u"].concat()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    match &read_legacy(bytes).unwrap().get("w").unwrap().data {
        Data::Float(values) => values.clone(),
        other => panic!("{other:?}"),
    }
}

fn refused(parts: &[&[u8]], storages: &[(&str, &[f32])], kind: ErrorKind, message: &str) -> Refusal {
    let refusal = read_legacy(&legacy(parts, storages)).unwrap_err();
    assert_eq!(refusal.kind, kind, "{refusal}");
    assert!(refusal.to_string().contains(message), "{refusal}");
    refusal
}

const STORAGE: [(&str, &[f32]); 1] = [("0", &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])];

fn view(offset: u32, sizes: &[u32], strides: &[u32]) -> Vec<u8> {
    dict(&tensor("torch.FloatStorage", ("0", 6), offset, sizes, strides), b"")
}

#[test]
fn strides_and_offsets_are_honoured() {
    let values =
        |offset, sizes: &[u32], strides: &[u32]| floats(&legacy(&[&view(offset, sizes, strides)], &STORAGE));
    assert_eq!(values(0, &[2, 3], &[3, 1]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(values(0, &[3, 2], &[1, 3]), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(values(3, &[3, 1], &[1, 77]), [3.0, 4.0, 5.0]);
    assert_eq!(values(1, &[2, 2], &[0, 2]), [1.0, 3.0, 1.0, 3.0]);
    assert!(values(99, &[2, 0], &[1, 1]).is_empty());
}

#[test]
fn views_beyond_their_storage_are_refused() {
    let cases: [(u32, &[u32], &[u32]); 5] = [
        (0, &[7, 1], &[1, 1]),
        (1, &[2, 3], &[3, 1]),
        (0, &[2, 2], &[5, 1]),
        (6, &[1, 1], &[1, 1]),
        (0, &[0x7fff_ffff; 2], &[0x7fff_ffff; 2]),
    ];
    for (offset, sizes, strides) in cases {
        let refusal = refused(&[&view(offset, sizes, strides)], &STORAGE, ErrorKind::Damaged, "sizes");
        assert_eq!(refusal.place, "tensor 'w'");
    }
    let unequal = view(0, &[2, 3], &[1]);
    refused(&[&unequal], &STORAGE, ErrorKind::Damaged, "has 2 sizes and 1 strides");
    let negative = view(0, &[2, 0xffff_ffff], &[1, 1]);
    refused(&[&negative], &STORAGE, ErrorKind::Damaged, "impossible storage, sizes or strides");
}

#[test]
fn a_storage_that_is_missing_or_too_short_is_refused() {
    let weight = view(0, &[2, 3], &[3, 1]);
    refused(&[&weight], &[], ErrorKind::Damaged, "tensor 'w': has no storage");
    let short = "its storage of 6 float32 elements has 8 bytes";
    refused(&[&weight], &[("0", &[0.0, 1.0])], ErrorKind::Damaged, short);
    let unknown = [STORAGE[0], ("1", &[1.0])];
    refused(&[&weight], &unknown, ErrorKind::Damaged, "storage '1': is not known");
    let mut cut = legacy(&[&weight], &STORAGE);
    cut.truncate(cut.len() - 1);
    assert_eq!(
        read_legacy(&cut).unwrap_err().to_string().lines().next(),
        Some("storage '0': is not all there")
    );
}

#[test]
fn types_that_weights_do_not_have_are_refused_by_name() {
    let of = |class| dict(&tensor(class, ("0", 6), 0, &[2, 3], &[3, 1]), b"");
    let strange = of("torch.Float3Storage");
    let message = "has tensors of `torch.Float3Storage`, a type that is not known";
    refused(&[&strange], &STORAGE, ErrorKind::Code, message);
    // Half the bytes of f64 are there.
    refused(&[&of("torch.DoubleStorage")], &STORAGE, ErrorKind::Damaged, "storage '0': is not all there");
    let checkpoint = read_legacy(&legacy(&[&of("torch.IntStorage")], &STORAGE)).unwrap();
    assert_eq!(checkpoint.get("w").unwrap_err().reason, "has elements of type int32");
}

#[test]
fn nothing_is_called() {
    let weight = tensor("torch.FloatStorage", ("0", 6), 0, &[2, 3], &[3, 1]);
    let attack = |code: &[u8], message: &str| {
        let parts = dict(&weight, &[&text("x")[..], code].concat());
        let refusal = refused(&[&parts], &STORAGE, ErrorKind::Code, message);
        assert!(refusal.place.starts_with("pickle, byte ") && !refusal.help.is_empty());
    };
    let command = text("true");
    let calls = "calls `os.system`, which is not read: nothing is executed here";
    attack(&[b"cos\nsystem\n", &command[..], b"\x85R"].concat(), calls);
    attack(&[b"(", &command[..], b"ios\nsystem\n"].concat(), calls);
    attack(&[b"(cos\nsystem\n", &command[..], b"o"].concat(), calls);
    attack(&[&text("os")[..], &text("system"), b"\x93", &command, b"\x85R"].concat(), calls);
    let hidden =
        [b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nN", &command[..], b"\x85NtR"].concat();
    attack(&hidden, calls);
    attack(&[b"cbuiltins\neval\n", &command[..], b"\x85R"].concat(), "calls `builtins.eval`");
    attack(&[b"ctorch.storage\n_load_from_bytes\n", &command[..], b"\x85R"].concat(), "_load_from_bytes`");
    attack(b"cmodels\nNet\n)\x81", "holds an object of the class `models.Net`");
    attack(b"cmodels\nNet\n)}\x92", "holds an object of the class `models.Net`");
    attack(b"cos\nenviron\n}b", "changes `os.environ`");
    attack(&[b"(", &text("module")[..], b"cmodels\nNet\nNNtQ"].concat(), "class `models.Net`");
    attack(b"\x82\x01", "has the instruction 0x82, which is not read");
    attack(b"I1\n", "has the instruction 0x49, which is not read");
}

#[test]
fn names_alone_and_plain_data_are_harmless() {
    let weight = tensor("torch.FloatStorage", ("0", 6), 0, &[2, 3], &[3, 1]);
    let harmless: [&[u8]; 6] = [
        b"ctorch.optim.sgd\nSGD\n",
        b"cargparse\nNamespace\n)\x81}b",
        b"cbuiltins\nset\n](NNe\x85R",
        b"\x8f(NN\x90",
        b"ccollections\nOrderedDict\n)R}b",
        b"G\0\0\0\0\0\0\0\0",
    ];
    for code in harmless {
        let parts = dict(&weight, &[&text("x")[..], code].concat());
        assert_eq!(floats(&legacy(&[&parts], &STORAGE)).len(), 6);
    }
}

#[test]
fn state_dicts_of_python_2_are_read() {
    let weight = tensor("torch.FloatStorage", ("0", 6), 0, &[2, 3], &[3, 1]);
    let name = [b"U\x01w", &weight[..]].concat();
    let parts = [b"ccollections\nOrderedDict\n](](", &name[..], b"ee\x85R"].concat();
    assert_eq!(floats(&legacy(&[&parts], &STORAGE)).len(), 6);
}

#[test]
fn memos_do_not_multiply() {
    // Thirty dictionaries, each holding the one before it a thousand times.
    let mut bomb = b"}q\0".to_vec();
    for level in 1..30u8 {
        bomb.extend([b"}q", &[level][..], b"("].concat());
        for index in 0..1000u32 {
            bomb.extend([b"J", &index.to_le_bytes()[..], b"h", &[level - 1]].concat());
        }
        bomb.push(b'u');
    }
    let refusal = read_legacy(&legacy(&[&bomb], &[])).unwrap_err();
    assert_eq!(refusal.reason, "holds no tensors of weights by name");
    // A storage of 256 KB under a thousand names: 256 MB of weights from a file of little more.
    let elements = vec![0.0f32; 1 << 16];
    let mut names =
        [&text("w")[..], &tensor("torch.FloatStorage", ("0", 1 << 16), 0, &[1 << 16, 1], &[1, 1]), b"q\0"];
    let first = std::mem::take(&mut names).concat();
    let more = (0..1000).flat_map(|index| [text(&index.to_string()), b"h\0".to_vec()].concat());
    let shared = [b"}(".to_vec(), first, more.collect(), b"u".to_vec()].concat();
    let message = "shared by many tensors, unfold to many times the file's size";
    refused(&[&shared], &[("0", &elements)], ErrorKind::Damaged, message);
    // Sizes and pairs that are remembered, and used again and again.
    let sizes = tensor("torch.FloatStorage", ("0", 6), 0, &[1; 9], &[1; 9]);
    refused(&[&dict(&sizes, b"")], &STORAGE, ErrorKind::Damaged, "impossible storage, sizes or strides");
    let mut pairs = b"]q\0(".to_vec();
    pairs.extend([b"]q\x01(", &text("k")[..], b"Ne"].concat());
    pairs.extend(b"h\x01".repeat(9_999));
    pairs.extend(b"e");
    pairs.extend(b"ccollections\nOrderedDict\nq\x02");
    pairs.extend(b"h\x02h\0\x85R".repeat(10_000));
    let read = pickle(&[&pairs]);
    let read = machine::read(&read, 0).unwrap();
    let entries = |object: &values::Object| match object {
        values::Object::Dict(entries) => entries.len(),
        _ => 0,
    };
    assert_eq!(read.objects.iter().map(entries).sum::<usize>(), 10_000);
    // One element as a tensor of a billion.
    let unfolded = view(0, &[1 << 15, 1 << 15], &[0, 0]);
    refused(&[&unfolded], &STORAGE, ErrorKind::Damaged, message);
}

#[test]
fn depth_and_loops_need_no_stack_of_ours() {
    // A list that holds itself, as the top.
    let refusal = read_legacy(&legacy(&[b"]q\0h\0a"], &[])).unwrap_err();
    assert_eq!(refusal.reason, "holds no dictionary of tensors by name");
    // A dictionary that holds itself, and lists as deep as a file has room for.
    let deep = [&b"}q\0("[..], &text("self"), b"h\0u"].concat();
    assert!(read_legacy(&legacy(&[&deep], &[])).is_err());
    let mut nested = vec![b']'; 100_000];
    nested.extend(vec![b'a'; 99_999]);
    assert!(read_legacy(&legacy(&[&nested], &[])).is_err());
    let endless = vec![b'N'; machine::MAX_INSTRUCTIONS + 1];
    let refusal = read_legacy(&legacy(&[&endless], &[])).unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Format);
    assert!(refusal.reason.contains("instructions"));
}

#[test]
fn instructions_without_their_operands_are_damage() {
    let bad: [&[u8]; 22] = [
        b"",
        b"a",
        b"e",
        b"s",
        b"u",
        b"t",
        b"\x85",
        b"R",
        b"b",
        b"Q",
        b"\x81",
        b"\x93",
        b"h\x07",
        b"q\0",
        b"\x94",
        b"N(0",
        b"NNR",
        b"NQ",
        b"]NNs",
        b"}Na",
        b"NN\x93",
        b"X\xff\xff\xff\xffa",
    ];
    for code in bad {
        let refusal = machine::read(&pickle(&[code]), 0).unwrap_err();
        let kinds = [ErrorKind::Damaged, ErrorKind::Code];
        assert!(kinds.contains(&refusal.kind), "{code:?}: {refusal}");
    }
}

#[test]
fn of_several_state_dicts_the_models_is_taken() {
    let weight = dict(&tensor("torch.FloatStorage", ("0", 6), 0, &[2, 3], &[3, 1]), b"");
    let under = |names: &[&str]| {
        let entries: Vec<Vec<u8>> = names.iter().map(|name| [text(name), weight.clone()].concat()).collect();
        read_legacy(&legacy(&[b"}(", &entries.concat(), b"u"], &STORAGE))
    };
    let note = |names: &[&str]| under(names).unwrap().notes.remove(0);
    assert_eq!(note(&["anything"]), "PyTorch checkpoint: the state dict under 'anything'");
    assert_eq!(note(&["ema", "model"]), "PyTorch checkpoint: the state dict under 'model'; not taken: 'ema'");
    let refusal = under(&["generator", "discriminator"]).unwrap_err();
    assert_eq!(refusal.reason, "has several dictionaries of weights: 'generator', 'discriminator'");
}

#[test]
fn other_pickles_are_refused() {
    let refusal = read_legacy(&pickle(&[&view(0, &[2, 3], &[3, 1])])).unwrap_err();
    assert_eq!(refusal.reason, "is a Python pickle that torch.save did not write");
    let mut version = legacy(&[&view(0, &[2, 3], &[3, 1])], &STORAGE);
    version[18] = 0xea;
    assert!(read_legacy(&version).unwrap_err().reason.contains("unknown version"));
    let mut big = legacy(&[&view(0, &[2, 3], &[3, 1])], &STORAGE);
    let endian = [b"}", &text("little_endian")[..], b"\x89s."].concat();
    big.splice(23..25, endian);
    assert!(read_legacy(&big).unwrap_err().reason.contains("big-endian"));
}
