//! What hostile files may make the importers and readers hold: the bounds that `docs/robustness.md` states,
//! against the files that come nearest to them.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::Path;

use peak_alloc::PeakAlloc;
use skipstone::Shape;
use skipstone_tools::data::Dataset;
use skipstone_tools::front::{ImportOptions, import_bytes};
use skipstone_tools::picture;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// What reading a model may take: so many times its bytes, and so many bytes more.
const MODEL: (usize, usize) = (64, 64 << 20);

/// What an array, and what an archive of arrays may.
const ARRAY: (usize, usize) = (4, 1 << 20);
const ARCHIVE: (usize, usize) = (4 * 1032, 1 << 20);

/// What a picture may.
const PICTURE: (usize, usize) = (0, 1 << 30);

/// Files that claim many pixels: as many as are decoded, and more.
const PICTURES: [(&str, &str); 2] = [
    ("a picture of 121 megapixels", "P6 11000 11000 255\n"),
    (
        "a picture of 96 megapixels and their transparency",
        "P7\nWIDTH 9800\nHEIGHT 9800\nDEPTH 2\nMAXVAL 255\nTUPLTYPE GRAYSCALE_ALPHA\nENDHDR\n",
    ),
];

/// Bytes that a small file may unfold to.
const SMALL: usize = 1 << 20;

/// Bytes of the files.
const SIZE: usize = 4 << 20;

fn archive(method: CompressionMethod, members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        writer.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A field of a protobuf message, with its length.
fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    let (mut bytes, mut length) = (vec![tag << 3 | 2], content.len());
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(content);
    bytes
}

fn onnx(graph: &[u8]) -> Vec<u8> {
    let opset = field(8, &[0x10, 17]);
    [field(7, graph), opset].concat()
}

/// Files of [`SIZE`] bytes, or less, that unfold as much as a format lets them.
fn models() -> Vec<(&'static str, Vec<u8>)> {
    let json = |unit: &str| {
        let mut text = String::from("[");
        text.push_str(&unit.repeat(SIZE / unit.len()));
        text.truncate(text.trim_end_matches(',').len());
        text.push(']');
        text.into_bytes()
    };
    let honest =
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/residual-keras3.keras")).unwrap();
    let mut weights = Vec::new();
    let mut honest = ZipArchive::new(Cursor::new(honest)).unwrap();
    honest.by_name("model.weights.h5").unwrap().read_to_end(&mut weights).unwrap();
    let h5 = || [b"\x89HDF\r\n\x1a\n".to_vec(), vec![0; 16 * SIZE]].concat();
    let keras = |config: Vec<u8>, weights: Vec<u8>, method| {
        archive(method, &[("config.json", config), ("model.weights.h5", weights)])
    };
    let pickle = |unit: &[u8]| [&[0x80, 2][..], &unit.repeat(SIZE / unit.len())].concat();
    let header = |json: String| [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
    let tensor = |name: usize| format!(r#""{name}":{{"dtype":"F16","shape":[],"data_offsets":[0,0]}},"#);
    let names = (0..SIZE / 60).map(tensor).collect::<String>();
    let ones = "1,".repeat(SIZE / 2);
    let mut node = field(4, b"Identity");
    node.extend(field(1, b""));
    let small_nodes = field(1, &node).repeat(SIZE / (node.len() + 2));
    let inputs = field(1, &field(1, b"").repeat(SIZE / 2));
    let attribute = field(5, &[field(1, b"kernel_shape"), field(8, &vec![1; SIZE])].concat());
    let wide = field(1, &[field(4, b"Conv"), attribute].concat());
    let mut models = vec![
        (
            "Keras: numbers in the configuration",
            keras(json("0,"), weights.clone(), CompressionMethod::Stored),
        ),
        ("Keras: maps in the configuration", keras(json("{},"), weights.clone(), CompressionMethod::Stored)),
        ("Keras: a deflated configuration", keras(json("0,"), weights.clone(), CompressionMethod::Deflated)),
        ("Keras: a small deflated configuration", {
            let text = [b"[".to_vec(), b"0,".repeat(SMALL / 2 - 8), b"0]".to_vec()].concat();
            keras(text, weights.clone(), CompressionMethod::Deflated)
        }),
        ("Keras: deflated weights", keras(b"{}".to_vec(), h5(), CompressionMethod::Deflated)),
        ("safetensors: many tensors", header(format!("{{{}}}", names.trim_end_matches(',')))),
        (
            "safetensors: many axes",
            header(format!(
                r#"{{"a":{{"dtype":"F32","shape":[{}],"data_offsets":[0,4]}}}}"#,
                ones.trim_end_matches(',')
            )),
        ),
        ("ONNX: empty nodes", onnx(&field(1, b"").repeat(SIZE / 2))),
        ("ONNX: small nodes", onnx(&small_nodes)),
        ("ONNX: empty initializers", onnx(&field(5, b"").repeat(SIZE / 2))),
        ("ONNX: empty inputs", onnx(&field(11, b"").repeat(SIZE / 2))),
        ("ONNX: a node of empty inputs", onnx(&inputs)),
        ("ONNX: a long attribute", onnx(&wide)),
        ("a description", "[[stage]]\n".repeat(SIZE / 10).into_bytes()),
        ("a description of 1 MiB", "[[stage]]\n".repeat((1 << 20) / 10).into_bytes()),
        ("a description of numbers", format!("a = [{}]", "0,".repeat((1 << 19) - 8)).into_bytes()),
        ("a description of tables", format!("a = [{}]", "{},".repeat((1 << 20) / 3 - 8)).into_bytes()),
    ];
    for unit in ["(", "N", "]", ")", "}", "(t", "(l", "]q\0", "}q\0", "(e", "K\0", "cos\nx\n"] {
        models.push(("a pickle", pickle(unit.as_bytes())));
    }
    models
}

/// Images of zeros, which DEFLATE makes as small as it can.
fn data_sets() -> [(&'static str, Vec<u8>, (usize, usize)); 3] {
    let count = SIZE / 64;
    let array = |shape: String, length: usize| {
        let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({shape}), }}\n");
        let mut file = b"\x93NUMPY\x01\0".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.resize(file.len() + length, 0);
        file
    };
    let images = array(format!("{count}, 8, 8, 1"), 64 * count);
    let labels = array(format!("{count},"), count);
    let members = [("images.npy", images.clone()), ("labels.npy", labels)];
    [
        ("zeros.npz", archive(CompressionMethod::Deflated, &members), ARCHIVE),
        ("zeros.npy", images, ARRAY),
        ("zeros.bin", vec![0; 65 * count], ARRAY),
    ]
}

/// One test: whatever runs beside it would be counted.
#[test]
fn hostile_files_stay_within_the_stated_memory() {
    let mut failed = Vec::new();
    let mut check = |what: &str,
                     bytes: usize,
                     (multiple, constant): (usize, usize),
                     work: &dyn Fn() -> String| {
        let before = ALLOCATED.current_usage();
        ALLOCATED.reset_peak_usage();
        let outcome = work();
        let taken = ALLOCATED.peak_usage() - before;
        let outcome: String = outcome.chars().take(110).collect();
        println!("{what}: {bytes} bytes, {taken} of memory ({:.1}): {outcome}", taken as f64 / bytes as f64);
        if taken > multiple * bytes + constant {
            failed.push(what.to_string());
        }
    };
    for (what, bytes) in models() {
        check(what, bytes.len(), MODEL, &|| match import_bytes(
            bytes.clone(),
            Path::new("model"),
            &ImportOptions::default(),
        ) {
            Ok(_) => "read".into(),
            Err(error) => error.to_string(),
        });
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes, bound) in data_sets() {
        let path = folder.path().join(name);
        fs::write(&path, &bytes).unwrap();
        check(name, bytes.len(), bound, &|| {
            let data = Dataset::open(&path, Shape::new(8, 8, 1), None);
            format!("{:?}", data.map(|data| data.len()).map_err(|error| error.to_string()))
        });
    }
    for (what, header) in PICTURES {
        check(what, header.len(), PICTURE, &|| {
            picture::decode(header.as_bytes(), Shape::new(8, 8, 3)).unwrap_err().to_string()
        });
    }
    assert!(failed.is_empty(), "{failed:?}");
}
