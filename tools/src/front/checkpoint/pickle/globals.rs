//! The functions and classes that a checkpoint may name: those that build tensors, and those of plain data, which is skipped.

use super::storage::Dtype;

/// The help for a file that holds more than weights.
pub(super) const SAVE_WEIGHTS: &str =
    "save the weights alone, in Python: torch.save(model.state_dict(), 'weights.pth')";

/// A function or class, by what is done when it is called.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Global {
    /// A dictionary: the arguments, if any, are its pairs.
    Dict,
    /// `torch.Size`: its argument.
    Size,
    /// Storage, offset, sizes, strides, and more that is skipped.
    RebuildTensor,
    /// A tensor, and more that is skipped.
    RebuildParameter,
    /// A function, a type, the function's arguments, and attributes that are skipped.
    RebuildFromType,
    /// Named in persistent ids, never called.
    Storage(Dtype),
    /// Makes plain data that no weight needs.
    Skipped,
    /// Everything else: refused when it is called. Index of its name in the machine.
    Foreign(u32),
}

/// What a name stands for; `None` for everything that is not listed here.
pub(super) fn find(module: &str, name: &str) -> Option<Global> {
    let found = match (module, name) {
        ("collections", "OrderedDict" | "defaultdict" | "Counter") => Global::Dict,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::RebuildParameter,
        ("torch._tensor", "_rebuild_from_type_v2") => Global::RebuildFromType,
        ("torch", "Size") => Global::Size,
        ("torch" | "torch.cuda", _) if name.ends_with("Storage") => Global::Storage(Dtype::of_storage(name)?),
        _ if is_plain_data(module, name) => Global::Skipped,
        _ => return None,
    };
    Some(found)
}

/// What checkpoints hold beside weights: arguments of the training, scores, dates, paths, types.
fn is_plain_data(module: &str, name: &str) -> bool {
    match module {
        "argparse" => name == "Namespace",
        "types" => name == "SimpleNamespace",
        "collections" => name == "deque",
        "_codecs" => name == "encode",
        "datetime" => matches!(name, "date" | "datetime" | "timedelta"),
        "pathlib" | "pathlib._local" => {
            matches!(name, "Path" | "PosixPath" | "WindowsPath" | "PurePosixPath" | "PureWindowsPath")
        }
        "builtins" | "__builtin__" => {
            const TYPES: [&str; 12] = [
                "bool",
                "bytearray",
                "bytes",
                "complex",
                "dict",
                "float",
                "frozenset",
                "int",
                "list",
                "set",
                "str",
                "tuple",
            ];
            TYPES.contains(&name)
        }
        "numpy" => matches!(name, "dtype" | "ndarray"),
        "numpy.core.multiarray" | "numpy._core.multiarray" => matches!(name, "scalar" | "_reconstruct"),
        "torch" => name == "device" || Dtype::is_name(name),
        _ => false,
    }
}
