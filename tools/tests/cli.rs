//! The program `skipstone` as a person meets it: what it prints, its exit codes, its errors.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use serde_json::Value;
use skipstone::host::format::{HEADER_BYTES, Header, MAGIC, VERSION};
use skipstone::{Model, Network};
use skipstone_tools::blob::Blob;
use skipstone_tools::data::Dataset;
use tempfile::TempDir;

/// Columns of a terminal on which every table fits.
const COLUMNS: usize = 80;

/// The digits' network, converted once for all tests.
static DIGITS: LazyLock<PathBuf> = LazyLock::new(|| {
    let blob = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-digits.skip");
    let output = convert_digits(&blob, &["--quiet"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    blob
});

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

fn model(name: &str) -> String {
    models().join(name).display().to_string()
}

fn digits() -> String {
    DIGITS.display().to_string()
}

fn skipstone<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skipstone")).args(arguments).output().expect("skipstone starts")
}

fn convert_digits(blob: &Path, more: &[&str]) -> Output {
    let (network, images) = (model("digits.toml"), model("digits-calibration.npz"));
    let blob = blob.display().to_string();
    skipstone(&[&["convert", &network, "-o", &blob, "--calibrate", &images], more].concat())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// What a successful command prints.
fn printed<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> String {
    let output = skipstone(arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The one JSON object that a successful command prints.
fn json<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Value {
    let value: Value = serde_json::from_str(&printed(arguments)).expect("one JSON object and nothing else");
    assert!(value.is_object());
    value
}

fn test_images() -> Dataset {
    let blob = Blob::read(&DIGITS).unwrap();
    Dataset::open(&models().join("digits-test.npz"), Model::parse(&blob).unwrap().input(), None).unwrap()
}

/// An image of the digits as a picture file.
fn picture(folder: &TempDir, pixels: &[u8]) -> String {
    let path = folder.path().join("digit.pgm");
    fs::write(&path, [b"P5 8 8 255\n", pixels].concat()).unwrap();
    path.display().to_string()
}

#[test]
fn every_command_explains_itself_with_examples() {
    for command in [&["--help"][..], &["convert", "--help"], &["inspect", "--help"], &["eval", "--help"]] {
        assert!(printed(command).contains("Examples:\n  skipstone "), "{command:?}");
    }
    assert!(printed(&["run", "--help"]).contains("Examples:\n  skipstone run "));
    assert!(printed(&["preprocess", "--help"]).contains("Examples:\n  skipstone preprocess "));
    assert_eq!(printed(&["--version"]), format!("skipstone {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn convert_ends_with_a_table_of_layers_and_needs() {
    let folder = TempDir::new().unwrap();
    let blob = folder.path().join("digits.skip");
    let output = convert_digits(&blob, &["--name", "numerals"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    for part in ["identity block", "convolutional block", "SNR dB", "flash (blob)", "arena, fed by rows"] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    assert!(shown.lines().all(|line| line.chars().count() <= COLUMNS || line.contains("digits.")), "{shown}");
    assert_eq!(output.stderr, b"", "a progress bar where there is no terminal");
    assert_eq!(json(&["inspect", blob.to_str().unwrap(), "--json"])["name"], "numerals");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "temporary files are left");
}

#[test]
fn normalizations_have_names() {
    let folder = TempDir::new().unwrap();
    let blob = folder.path().join("tiny.skip").display().to_string();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data");
    let [model, images] = ["tiny.th", "tiny.npz"].map(|name| data.join(name).display().to_string());
    let convert = |more: &[&str]| {
        let arguments = ["convert", &model, "-o", &blob, "--calibrate", &images, "--input", "8x8"];
        assert!(printed(&[&arguments[..], more].concat()).contains("CIFAR ResNet-4"));
        fs::read(&blob).unwrap()
    };
    let named = [
        ("imagenet", "--mean=.485,.456,.406", "--std=.229,.224,.225"),
        ("cifar10", "--mean=.4914,.4822,.4465", "--std=.2470,.2435,.2616"),
        ("0..1", "--mean=0", "--std=1"),
        ("-1..1", "--mean=.5", "--std=.5"),
    ];
    for (name, mean, std) in named {
        assert!(convert(&["--normalize", name]) == convert(&[mean, std]), "{name}");
    }
    let raw = convert(&["--normalize=0..255"]);
    assert!(raw != convert(&["--normalize=0..1"]));
    let against = ["eval", &blob, "--data", &images, "--against", &model, "--normalize=0..1"];
    assert!(printed(&against).contains("agreement"));
}

#[test]
fn convert_json_tells_what_inspect_tells() {
    let folder = TempDir::new().unwrap();
    let labels = folder.path().join("labels.txt");
    fs::write(&labels, "zero\none\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\n").unwrap();
    let blob = folder.path().join("digits.skip");
    let more = ["--json", "--calibration-images", "50", "--labels", labels.to_str().unwrap()];
    let output = convert_digits(&blob, &more);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let converted: Value = serde_json::from_slice(&output.stdout).expect("one JSON object and nothing else");
    let inspected = json(&["inspect", blob.to_str().unwrap(), "--json"]);
    for key in ["name", "blob_bytes", "arena_bytes", "arena_bytes_rows", "macs", "parameters"] {
        assert_eq!(converted[key], inspected[key], "{key}");
    }
    assert_eq!(converted["calibration_images"], 50);
    assert_eq!(converted["layers"].as_array().unwrap().len(), 10);
    assert_eq!(converted["blocks"].as_array().unwrap().len(), 3);
    assert_eq!(converted["warnings"].as_array().unwrap().len(), 0);
    let names = |report: &Value| -> Vec<(Value, Value)> {
        let layers = report["layers"].as_array().unwrap();
        layers.iter().map(|layer| (layer["name"].clone(), layer["block"].clone())).collect()
    };
    assert_eq!(names(&converted), names(&inspected));
    for layer in converted["layers"].as_array().unwrap() {
        assert!(layer["signal_to_noise_db"].as_f64().unwrap() > 15.0, "{layer}");
    }
    assert_eq!(inspected["labels"][7], "seven");
}

#[test]
fn the_report_is_written_with_the_accuracy_on_labelled_images_and_replaced() {
    let folder = TempDir::new().unwrap();
    let (blob, page) = (folder.path().join("digits.skip"), folder.path().join("digits.html"));
    let page_name = page.display().to_string();
    let written = |more: &[&str]| {
        let output = convert_digits(&blob, &[&["--quiet", "--report", &page_name], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        fs::read_to_string(&page).unwrap()
    };
    let calibration = written(&[]);
    assert!(calibration.contains("the calibration images themselves"), "{calibration:.2000}");
    let test = written(&["--evaluate", &model("digits-test.npz")]);
    assert!(test.contains("99.72 %") && test.contains("99.44 %"), "{test:.2000}");
    assert!(test.ends_with("</html>"));
}

#[test]
fn a_conversion_gives_the_same_bytes_again() {
    let folder = TempDir::new().unwrap();
    let blob = folder.path().join("digits.skip");
    assert!(convert_digits(&blob, &["--quiet"]).status.success());
    assert_eq!(fs::read(&blob).unwrap(), fs::read(&*DIGITS).unwrap());
}

#[test]
fn inspect_shows_layers_blocks_and_needs() {
    let shown = printed(&["inspect", &digits()]);
    for part in ["layer1.0", "identity block", "convolutional block", "conv 3x3 /2", "8x8x1", "total"] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    assert!(shown.lines().all(|line| line.chars().count() <= COLUMNS), "{shown}");
    assert!(shown.lines().all(|line| line.trim_end() == line), "{shown}");
}

#[test]
fn a_layer_can_be_an_output_of_int8_values() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("features.skip");
    let output = convert_digits(&path, &["--quiet", "--output", "layer2.1.conv2"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let blob = path.to_str().unwrap();
    let report = json(&["inspect", blob, "--json"]);
    assert_eq!((&report["classes"], report["outputs"].as_array().unwrap().len()), (&Value::from(0), 1));
    assert_eq!(report["outputs"][0]["name"], "layer2.1.conv2");
    // what comes after it is left out
    assert_eq!(report["layers"].as_array().unwrap().last().unwrap()["name"], "layer2.1.conv2");
    assert!(printed(&["inspect", blob]).contains("no class scores"));

    let image = models().join("cat.png").display().to_string();
    let shown = printed(&["run", blob, &image]);
    assert!(shown.starts_with("layer2.1.conv2: ") && shown.contains(", scale "), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= COLUMNS), "{shown}");
    let answer = json(&["run", blob, &image, "--json"]);
    let values = answer["outputs"][0]["values"].as_array().unwrap();
    let shape = &report["outputs"][0]["shape"];
    let sides = ["height", "width", "channels"].map(|side| shape[side].as_u64().unwrap());
    assert_eq!(values.len() as u64, sides.iter().product::<u64>());

    let refused = skipstone(&["eval", blob, "--data", &model("digits-test.npz")]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("gives int8 values, no class scores"));
}

#[test]
fn inspect_json_adds_up() {
    let report = json(&["inspect", &digits(), "--json"]);
    assert_eq!(report["blob_bytes"], fs::metadata(&*DIGITS).unwrap().len());
    let layers = report["layers"].as_array().unwrap();
    let sum = |key: &str| layers.iter().map(|layer| layer[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!((layers.len(), report["blocks"].as_array().unwrap().len()), (10, 3));
    assert_eq!(report["macs"], sum("macs"));
    assert_eq!(report["parameters"], sum("parameters"));
    for (plan, bytes) in [("frame", "arena_bytes"), ("rows", "arena_bytes_rows")] {
        assert_eq!(report[plan]["arena_bytes"], report[bytes]);
        assert!(report[plan]["peak_bytes"].as_u64() <= report[bytes].as_u64());
        let alive = layers.iter().map(|layer| layer[plan]["rows_alive"].as_u64().unwrap());
        assert!(alive.sum::<u64>() > 0, "{report}");
        let segments = report[plan]["segments"].as_array().unwrap();
        assert_eq!(layers.last().unwrap()[plan]["segment"], segments.len());
    }
}

#[test]
fn eval_reports_accuracy_and_agreement_with_the_float_network() {
    let (blob, data, float) = (digits(), model("digits-test.npz"), model("digits.toml"));
    let arguments = ["eval", &blob, "--data", &data, "--against", &float];
    let figures = json(&[&arguments[..], &["--json"]].concat());
    assert_eq!(figures["images"], 360);
    let (top1, float_top1) = (figures["top1"].as_f64().unwrap(), figures["float_top1"].as_f64().unwrap());
    assert!((98.0..=100.0).contains(&top1) && top1 >= float_top1 - 0.5, "{figures}");
    assert!(figures["agreement"].as_f64().unwrap() > 98.0, "{figures}");
    assert!(figures["score_rmse"].as_f64().unwrap() < figures["score_max_error"].as_f64().unwrap());
    let confusion = figures["confusion"].as_array().unwrap();
    let row_sum =
        |row: &Value| row.as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum::<u64>();
    assert_eq!(confusion.iter().map(row_sum).sum::<u64>(), 360);
    let right: u64 = (0..10).map(|class| confusion[class][class].as_u64().unwrap()).sum();
    assert_eq!(figures["correct"], right);

    let shown = printed(&arguments);
    assert!(shown.contains(&format!("{top1:.2} %")) && shown.contains("label, answer"), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= COLUMNS), "{shown}");
    assert_eq!(json(&["eval", &blob, "--data", &data, "--limit", "7", "--json"])["images"], 7);
}

#[test]
fn eval_gives_the_same_figures_on_one_core_and_on_many() {
    let (blob, data, float) = (digits(), model("digits-test.npz"), model("digits.toml"));
    let figures = |threads: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skipstone"));
        command.args(["eval", &blob, "--data", &data, "--against", &float, "--json"]);
        text(&command.env("RAYON_NUM_THREADS", threads).output().unwrap().stdout)
    };
    assert_eq!(figures("1"), figures("3"));
}

#[test]
fn run_answers_what_the_runtime_answers_bit_for_bit() {
    let folder = TempDir::new().unwrap();
    let data = test_images();
    let blob = Blob::read(&DIGITS).unwrap();
    let model = Model::parse(&blob).unwrap();
    let mut arena = skipstone::Arena::<8192>::new();
    let mut network: Network = Network::new(model, &mut arena).unwrap();
    for index in [0, 100, 359] {
        let scores = network.run(data.image(index)).unwrap();
        let answer = json(&["run", &digits(), &picture(&folder, data.image(index)), "--json"]);
        let told: Vec<f32> = serde_json::from_value(answer["scores"].clone()).unwrap();
        assert_eq!(told, scores.values());
        assert_eq!(answer["classes"][0]["index"], scores.top::<1>()[0].index);
        assert_eq!(answer["classes"].as_array().unwrap().len(), 5);
    }
    let shown = printed(&["run", &digits(), &self::model("cat.png")]);
    assert!(shown.starts_with("class") && shown.contains(" %"), "{shown}");
}

#[test]
fn preprocess_writes_the_bytes_that_the_network_sees() {
    let folder = TempDir::new().unwrap();
    let data = test_images();
    let raw = folder.path().join("digit.raw");
    let arguments = ["preprocess", &digits(), &picture(&folder, data.image(3)), "-o", raw.to_str().unwrap()];
    assert!(printed(&arguments).contains("8x8x1, 64 bytes"));
    assert_eq!(fs::read(&raw).unwrap(), data.image(3));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    for arguments in [&["inspect", &digits()][..], &["inspect", &digits(), "--json"], &["--help"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skipstone"));
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{arguments:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_a_failure() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_skipstone"));
    let output = command.args(["inspect", &digits()]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot write to standard output"));
}

/// Files that are wrong in one way each, beside the digits' blob, model and calibration images.
fn wrong_files() -> TempDir {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let blob = fs::read(&*DIGITS).unwrap();
    write("digits.skip", &blob);
    write("empty", b"");
    write("cut.skip", &blob[..blob.len() - 1]);
    write("header.skip", &blob[..HEADER_BYTES]);
    let mut flipped = blob.clone();
    flipped[blob.len() / 2] ^= 4;
    write("flipped.skip", &flipped);
    let mut newer = blob.clone();
    newer[MAGIC.len()] = VERSION as u8 + 1;
    write("newer.skip", &newer);
    write("text", b"This is neither a network nor a picture nor a data set, but it is long enough for all.");
    write("records.bin", &[0; 100]);
    let label_200 = [&[200][..], &[0; 64]].concat();
    write("labels.bin", &label_200);
    let npz = fs::read(models().join("digits-test.npz")).unwrap();
    write("cut.npz", &npz[..npz.len() / 2]);
    let png = fs::read(models().join("cat.png")).unwrap();
    write("cut.png", &png[..png.len() / 2]);
    let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 8, 8, 1), }";
    let header = format!("{header:<117}\n");
    write("unlabelled.npy", &[b"\x93NUMPY\x01\0\x76\0", header.as_bytes(), &[0; 64]].concat());
    write("three-labels.txt", b"a\nb\nc\n");
    write("latin1.txt", b"caf\xe9\n");
    fs::create_dir(folder.path().join("nothing")).unwrap();
    for name in ["digits.toml", "digits.safetensors", "digits-calibration.npz"] {
        fs::copy(models().join(name), folder.path().join(name)).unwrap();
    }
    folder
}

/// A command that must fail: its arguments (files in the folder of [`wrong_files`], `@` for `models/`), the
/// exit code, and parts of the message.
type Case = (&'static str, i32, &'static [&'static str]);

const CASES: &[Case] = &[
    // wrong usage
    ("", 2, &["Usage"]),
    ("transmogrify", 2, &["transmogrify"]),
    ("inspect", 2, &["<BLOB>"]),
    ("run digits.skip", 2, &["<IMAGE>"]),
    ("eval digits.skip", 2, &["--data"]),
    ("eval digits.skip --data @digits-test.npz --limit 0", 2, &["number of images", "1 or more"]),
    ("convert @digits.toml -o new.skip", 1, &["digits.toml", "conv1: the range", "--calibrate"]),
    (
        "convert @digits.toml -o new.skip --rounding tflite-exact",
        1,
        &["digits.toml: is a float model", "int8 .tflite"],
    ),
    ("convert @digits.toml -o new --output fc", 1, &["--output is given 2 times", "NAME.skip"]),
    (
        "convert @digits.toml -o new.skip --output head",
        1,
        &["digits.toml: output 'head': no tensor, node or layer has this name", "'fc'"],
    ),
    ("convert @digits.toml -o new.skip --rounding twice", 2, &["'twice'", "tflite-exact"]),
    ("convert @digits.toml --calibrate @digits-calibration.npz", 2, &["--output"]),
    ("convert @digits.toml -o new.skip --calibrate @digits-calibration.npz --mean 0.5", 2, &["--std"]),
    ("convert @digits.toml -o new.skip --calibrate @digits-calibration.npz --mean a --std 1", 2, &["'a'"]),
    (
        "convert @digits.toml -o new.skip --calibrate @digits-calibration.npz --mean nan --std 1",
        2,
        &["'nan'"],
    ),
    (
        "convert @digits.toml -o new.skip --calibrate nothing --normalize imagenet --mean 0 --std 1",
        2,
        &["--normalize", "cannot be used with"],
    ),
    (
        "eval digits.skip --data nothing --normalize mnist",
        2,
        &["'mnist'", "imagenet", "cifar10", "0..1", "0..255", "-1..1"],
    ),
    ("convert @digits.toml -o new.skip --calibrate nothing --input 8", 2, &["'8' is not a size", "32x32"]),
    // blobs
    ("inspect missing.skip", 1, &["missing.skip", "No such file"]),
    ("inspect nothing", 1, &["nothing", "directory"]),
    ("inspect empty", 1, &["empty: ", "truncated", "convert the model again"]),
    ("inspect header.skip", 1, &["header.skip: ", "truncated"]),
    ("inspect cut.skip", 1, &["cut.skip: ", "truncated"]),
    ("inspect flipped.skip", 1, &["flipped.skip: ", "CRC-32"]),
    ("inspect newer.skip", 1, &["newer.skip: ", "version 5", "version 4"]),
    ("inspect text", 1, &["text: ", "not a skipstone blob", "skipstone convert"]),
    ("inspect @digits.toml", 1, &["digits.toml: ", "not a skipstone blob"]),
    ("eval flipped.skip --data @digits-test.npz", 1, &["flipped.skip: ", "CRC-32"]),
    ("run cut.skip @cat.png", 1, &["cut.skip: ", "truncated"]),
    ("preprocess newer.skip @cat.png -o cat.raw", 1, &["newer.skip: ", "version"]),
    // pictures
    ("run digits.skip missing.png", 1, &["missing.png", "No such file"]),
    ("run digits.skip text", 1, &["text: ", "not a picture"]),
    ("run digits.skip digits.skip", 1, &["digits.skip: ", "not a picture"]),
    ("run digits.skip cut.png", 1, &["cut.png: ", "cannot be decoded"]),
    ("run digits.skip empty", 1, &["empty: ", "not a picture"]),
    ("run digits.skip nothing", 1, &["nothing: ", "cannot be read"]),
    ("preprocess digits.skip @digits-test.npz -o digit.raw", 1, &["digits-test.npz: ", "not a picture"]),
    // data
    ("eval digits.skip --data missing.npz", 1, &["missing.npz: ", "No such file"]),
    ("eval digits.skip --data nothing", 1, &["nothing: "]),
    ("eval digits.skip --data text", 1, &["text: ", "no data set"]),
    ("eval digits.skip --data empty", 1, &["empty: "]),
    ("eval digits.skip --data cut.npz", 1, &["cut.npz: "]),
    ("eval digits.skip --data records.bin", 1, &["records.bin: ", "100 bytes", "65-byte records"]),
    ("eval digits.skip --data labels.bin", 1, &["labels.bin: ", "label 200", "10 outputs"]),
    // float networks
    ("eval digits.skip --data @digits-test.npz --against text", 1, &["text: "]),
    ("eval digits.skip --data @digits-test.npz --against missing.onnx", 1, &["missing.onnx: "]),
    (
        "eval digits.skip --data @digits-test.npz --against @../tests/data/resnet-option-a.onnx",
        1,
        &["resnet-option-a.onnx: ", "the blob takes 8x8x1", "converted from"],
    ),
    // conversions
    ("convert missing.onnx -o new.skip --calibrate @digits-calibration.npz", 1, &["missing.onnx: "]),
    ("convert text -o new.skip --calibrate @digits-calibration.npz", 1, &["text: "]),
    ("convert empty -o new.skip --calibrate @digits-calibration.npz", 1, &["empty: "]),
    ("convert digits.skip -o new.skip --calibrate @digits-calibration.npz", 1, &["digits.skip: "]),
    ("convert @digits.safetensors -o new.skip --calibrate nothing", 1, &["nothing: "]),
    (
        "convert @digits.toml -o new.skip --calibrate nothing --input 9x8",
        1,
        &["takes 8x8x1", "leave --input out"],
    ),
    (
        "convert @digits.toml -o new.skip --calibrate nothing --normalize imagenet",
        1,
        &["digits.toml: ", "mean has 3 values for 1 channels"],
    ),
    (
        "convert @../tests/data/whole-model.pt -o new.skip --calibrate nothing",
        1,
        &["whole-model.pt: ", "`torch.nn.modules.container.Sequential`", "torch.save(model.state_dict()"],
    ),
    (
        "convert @../tests/data/unsupported-lstm.onnx -o new.skip --calibrate nothing",
        1,
        &["unsupported-lstm.onnx: ", "LSTM"],
    ),
    (
        "convert @../tests/data/nan-weight.onnx -o new.skip --calibrate @digits-calibration.npz",
        1,
        &["nan-weight.onnx: "],
    ),
    ("convert @digits.toml -o new.skip --calibrate missing", 1, &["missing: ", "No such file"]),
    ("convert @digits.toml -o new.skip --calibrate nothing", 1, &["nothing: "]),
    ("convert @digits.toml -o new.skip --calibrate records.bin", 1, &["records.bin: "]),
    ("convert @digits.toml -o new.skip --calibrate cut.npz", 1, &["cut.npz: "]),
    (
        "convert @digits.toml -o new.skip --calibrate @digits-calibration.npz --mean 1,2 --std 1,1",
        1,
        &["digits.toml: ", "mean"],
    ),
    (
        "convert @digits.toml -o new.skip --calibrate @digits-calibration.npz --mean 0 --std 0",
        1,
        &["digits.toml: ", "std"],
    ),
    (
        "convert @digits.toml -o new.skip --calibrate @digits-calibration.npz --labels three-labels.txt",
        1,
        &["digits.toml: ", "labels", "3"],
    ),
    (
        "convert @digits.toml -o new.skip --calibrate @digits-calibration.npz --labels missing.txt",
        1,
        &["missing.txt: ", "labels"],
    ),
    (
        "convert @digits.toml -o new.skip --calibrate @digits-calibration.npz --labels latin1.txt",
        1,
        &["latin1.txt: ", "UTF-8"],
    ),
    // outputs
    (
        "convert digits.toml -o missing/new.skip --calibrate digits-calibration.npz",
        1,
        &["missing/new.skip: ", "no folder missing", "make it first"],
    ),
    (
        "convert digits.toml -o nothing --calibrate digits-calibration.npz",
        1,
        &["nothing: ", "is a folder", "name the file"],
    ),
    (
        "convert digits.toml -o digits.toml --calibrate digits-calibration.npz",
        1,
        &["digits.toml: ", "is an input", "another output"],
    ),
    (
        "convert digits.toml -o digits-calibration.npz --calibrate digits-calibration.npz",
        1,
        &["digits-calibration.npz: ", "is an input"],
    ),
    (
        "convert digits.toml -o digits.safetensors --calibrate digits-calibration.npz",
        1,
        &["digits.safetensors: ", "is not a blob", "another output"],
    ),
    ("convert digits.skip -o ./digits.skip --calibrate nothing", 1, &["digits.skip: ", "is an input"]),
    (
        "convert digits.toml -o d.skip --calibrate digits-calibration.npz --report digits.safetensors",
        1,
        &["digits.safetensors: ", "is not a page", "another output"],
    ),
    (
        "convert digits.toml -o d.skip --calibrate digits-calibration.npz --report ./digits-calibration.npz",
        1,
        &["digits-calibration.npz: ", "is an input"],
    ),
    (
        "convert digits.toml -o d.html --calibrate digits-calibration.npz --report ./d.html",
        1,
        &["d.html: ", "the blob's", "another"],
    ),
    (
        "convert digits.toml -o d.skip --calibrate digits-calibration.npz --evaluate digits-calibration.npz",
        2,
        &["--report"],
    ),
    (
        "convert digits.toml -o d.skip --calibrate digits-calibration.npz --report d.html --evaluate nothing",
        1,
        &["nothing: "],
    ),
    (
        "convert digits.toml -o d.skip --calibrate digits-calibration.npz --report d.html --evaluate unlabelled.npy",
        1,
        &["unlabelled.npy: ", "no labels", "--evaluate"],
    ),
    ("preprocess digits.skip cut.png -o cut.png", 1, &["cut.png: ", "is an input"]),
    ("preprocess digits.skip @cat.png -o digits.skip", 1, &["digits.skip: ", "is an input"]),
    ("preprocess digits.skip @cat.png -o missing/cat.raw", 1, &["missing/cat.raw: ", "no folder missing"]),
];

#[test]
fn every_wrong_input_gets_its_error_and_leaves_nothing_behind() {
    let folder = wrong_files();
    let names = |folder: &TempDir| {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let mut names: Vec<_> =
            entries.map(|entry| (entry.file_name(), entry.metadata().unwrap().len())).collect();
        names.sort();
        names
    };
    let before = names(&folder);
    for (line, code, parts) in CASES {
        let at_models = |argument: &str| match argument.strip_prefix('@') {
            Some(name) => model(name),
            None => argument.to_owned(),
        };
        let arguments: Vec<String> = line.split_whitespace().map(at_models).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_skipstone"));
        let output = command.args(&arguments).current_dir(&folder).output().unwrap();
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "skipstone {line}\n{message}");
        for part in *parts {
            assert!(message.contains(part), "skipstone {line}\n{part:?} is missing in\n{message}");
        }
        if *code == 1 {
            assert!(message.starts_with("error: "), "skipstone {line}\n{message}");
        }
        assert_eq!(names(&folder), before, "skipstone {line}");
    }
}

#[cfg(unix)]
#[test]
fn a_device_or_socket_is_not_replaced() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let output = skipstone(&["preprocess", &digits(), &model("cat.png"), "-o", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("socket: is not a regular file"));
}

#[test]
fn with_json_a_failure_prints_nothing_to_standard_output() {
    let folder = wrong_files();
    for line in [
        "inspect cut.skip --json",
        "run digits.skip text --json",
        "eval digits.skip --data nothing --json",
        "convert text -o new.skip --calibrate nothing --json",
        "convert @digits.toml -o new.skip --calibrate nothing --json",
    ] {
        let arguments = line.replace('@', &format!("{}/", models().display()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_skipstone"));
        let output = command.args(arguments.split_whitespace()).current_dir(&folder).output().unwrap();
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), String::new()), "{line}");
    }
}

#[test]
fn a_blob_cut_anywhere_is_refused() {
    let folder = TempDir::new().unwrap();
    let blob = fs::read(&*DIGITS).unwrap();
    let path = folder.path().join("cut.skip");
    for length in (0..blob.len()).step_by(blob.len() / 40) {
        fs::write(&path, &blob[..length]).unwrap();
        let output = skipstone(&["inspect", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{length}: {}", text(&output.stderr));
    }
}

#[test]
fn a_damaged_blob_with_a_right_checksum_is_refused_or_shown_but_never_a_panic() {
    let folder = TempDir::new().unwrap();
    let blob = fs::read(&*DIGITS).unwrap();
    let path = folder.path().join("damaged.skip");
    let manifest_bytes = Header::read(&blob).unwrap().manifest_bytes as usize;
    for index in (0..manifest_bytes).step_by(7) {
        let mut damaged = blob.clone();
        damaged[HEADER_BYTES + index] ^= 1 << (index % 8);
        let checksum = skipstone::host::checksum(&damaged).to_le_bytes();
        damaged[Header::CRC_OFFSET..][..4].copy_from_slice(&checksum);
        fs::write(&path, &damaged).unwrap();
        let output = skipstone(&["inspect", path.to_str().unwrap()]);
        let message = text(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 1)), "byte {index}: {message}");
        assert!(!message.contains("panicked"), "byte {index}: {message}");
    }
}
