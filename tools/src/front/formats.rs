//! The model formats that can be imported, for help texts, messages and the list of fuzz targets.
//!
//! This file uses nothing of the crate: `cargo xtask` includes it without building the importers. What
//! detects and reads each format is in `readers.rs`, in the same order.

/// A model format.
#[derive(Debug, PartialEq, Eq)]
pub struct Format {
    /// Its name in messages.
    pub name: &'static str,
    /// Its fuzz target.
    pub target: &'static str,
    /// How files' names end, without the dot. The content decides, never the name.
    pub extensions: &'static [&'static str],
    /// What can be imported, for help texts.
    pub about: &'static str,
}

/// All formats.
pub const FORMATS: [Format; 6] = [
    Format {
        name: "ONNX",
        target: "onnx",
        extensions: &["onnx"],
        about: "float, or quantized with QDQ pairs",
    },
    Format {
        name: "TensorFlow Lite",
        target: "tflite",
        extensions: &["tflite"],
        about: "float, int8 and uint8",
    },
    Format {
        name: "Keras",
        target: "keras",
        extensions: &["h5", "keras"],
        about: "float, functional and sequential models",
    },
    Format {
        name: "PyTorch checkpoint",
        target: "torch",
        extensions: &["pt", "pth", "th"],
        about: "of a ResNet; nothing in it is executed",
    },
    Format {
        name: "safetensors checkpoint",
        target: "safetensors",
        extensions: &["safetensors"],
        about: "of a ResNet",
    },
    Format {
        name: "TOML description",
        target: "description",
        extensions: &["toml"],
        about: "the layers of a checkpoint of any other network",
    },
];

/// `ONNX (.onnx), TensorFlow Lite (.tflite), ...`
pub fn known() -> String {
    let format = |format: &Format| format!("{} ({})", format.name, dotted(format.extensions));
    FORMATS.iter().map(format).collect::<Vec<_>>().join(", ")
}

/// A line for each format: its extensions, its name and what can be imported.
pub fn help() -> String {
    let line =
        |format: &Format| format!("  {:17} {}: {}", dotted(format.extensions), format.name, format.about);
    FORMATS.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn dotted(extensions: &[&str]) -> String {
    extensions.iter().map(|extension| format!(".{extension}")).collect::<Vec<_>>().join(", ")
}
