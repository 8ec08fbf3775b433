//! What the TensorFlow Lite schema numbers: the fields of its tables, its operators, types and settings.

/// Fields of the table `Model`.
pub(super) mod model {
    pub(crate) const VERSION: usize = 0;
    pub(crate) const OPERATOR_CODES: usize = 1;
    pub(crate) const SUBGRAPHS: usize = 2;
    pub(crate) const BUFFERS: usize = 4;
}

/// Fields of the table `OperatorCode`.
pub(super) mod operator_code {
    pub(crate) const DEPRECATED_BUILTIN: usize = 0;
    pub(crate) const CUSTOM: usize = 1;
    pub(crate) const BUILTIN: usize = 3;
}

/// Fields of the table `SubGraph`.
pub(super) mod subgraph {
    pub(crate) const TENSORS: usize = 0;
    pub(crate) const INPUTS: usize = 1;
    pub(crate) const OUTPUTS: usize = 2;
    pub(crate) const OPERATORS: usize = 3;
}

/// Fields of the table `Tensor`.
pub(super) mod tensor {
    pub(crate) const SHAPE: usize = 0;
    pub(crate) const TYPE: usize = 1;
    pub(crate) const BUFFER: usize = 2;
    pub(crate) const NAME: usize = 3;
    pub(crate) const QUANTIZATION: usize = 4;
    pub(crate) const SPARSITY: usize = 6;
    pub(crate) const SHAPE_SIGNATURE: usize = 7;
    pub(crate) const EXTERNAL_BUFFER: usize = 10;
}

/// Fields of the table `QuantizationParameters`.
pub(super) mod quantization {
    pub(crate) const SCALE: usize = 2;
    pub(crate) const ZERO_POINT: usize = 3;
    pub(crate) const DETAILS_TYPE: usize = 4;
    pub(crate) const DIMENSION: usize = 6;
}

/// Fields of the table `Buffer`.
pub(super) mod buffer {
    pub(crate) const DATA: usize = 0;
    pub(crate) const OFFSET: usize = 1;
    pub(crate) const SIZE: usize = 2;
}

/// Fields of the table `Operator`.
pub(super) mod operator {
    pub(crate) const CODE: usize = 0;
    pub(crate) const INPUTS: usize = 1;
    pub(crate) const OUTPUTS: usize = 2;
    pub(crate) const OPTIONS: usize = 4;
}

/// Version of the schema; there has been no other since 2017.
pub(super) const VERSION: i32 = 3;

/// An operator that is named by a string of its own.
pub(super) const CUSTOM: usize = 32;

/// Type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TensorType(pub(super) u8);

impl TensorType {
    pub(super) const FLOAT32: TensorType = TensorType(0);
    pub(super) const FLOAT16: TensorType = TensorType(1);
    pub(super) const INT32: TensorType = TensorType(2);
    pub(super) const UINT8: TensorType = TensorType(3);
    pub(super) const INT64: TensorType = TensorType(4);
    pub(super) const BOOL: TensorType = TensorType(6);
    pub(super) const INT16: TensorType = TensorType(7);
    pub(super) const INT8: TensorType = TensorType(9);
    pub(super) const FLOAT64: TensorType = TensorType(10);
    pub(super) const BFLOAT16: TensorType = TensorType(18);

    pub(super) fn is_float(self) -> bool {
        matches!(self, Self::FLOAT32 | Self::FLOAT16 | Self::FLOAT64 | Self::BFLOAT16)
    }

    pub(super) fn is_integer(self) -> bool {
        matches!(self, Self::INT32 | Self::UINT8 | Self::INT64 | Self::BOOL | Self::INT16 | Self::INT8)
    }

    /// Name in the schema.
    pub(super) fn name(self) -> String {
        const NAMES: [&str; 23] = [
            "FLOAT32",
            "FLOAT16",
            "INT32",
            "UINT8",
            "INT64",
            "STRING",
            "BOOL",
            "INT16",
            "COMPLEX64",
            "INT8",
            "FLOAT64",
            "COMPLEX128",
            "UINT64",
            "RESOURCE",
            "VARIANT",
            "UINT32",
            "UINT16",
            "INT4",
            "BFLOAT16",
            "INT2",
            "UINT4",
            "FLOAT8_E4M3FN",
            "FLOAT8_E5M2",
        ];
        NAMES.get(usize::from(self.0)).map_or_else(|| format!("number {}", self.0), |name| (*name).into())
    }
}

/// Value of the setting `Padding`: as much as gives an output for every stride.
pub(super) const SAME: u8 = 0;

/// Values of the setting `ActivationFunctionType` that are clamps, and their bounds.
pub(super) const CLAMPS: [(u8, &str, [f32; 2]); 3] =
    [(1, "RELU", [0.0, f32::INFINITY]), (2, "RELU_N1_TO_1", [-1.0, 1.0]), (3, "RELU6", [0.0, 6.0])];

/// Name of a built-in operator.
pub(super) fn operator_name(code: usize) -> String {
    OPERATORS.get(code).map_or_else(|| format!("operator {code}"), |name| (*name).into())
}

/// The built-in operators by their numbers.
#[rustfmt::skip]
const OPERATORS: [&str; 162] = [
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE", "DEQUANTIZE",
    "EMBEDDING_LOOKUP", "FLOOR", "FULLY_CONNECTED", "HASHTABLE_LOOKUP", "L2_NORMALIZATION", "L2_POOL_2D",
    "LOCAL_RESPONSE_NORMALIZATION", "LOGISTIC", "LSH_PROJECTION", "LSTM", "MAX_POOL_2D", "MUL", "RELU",
    "RELU_N1_TO_1", "RELU6", "RESHAPE", "RESIZE_BILINEAR", "RNN", "SOFTMAX", "SPACE_TO_DEPTH", "SVDF", "TANH",
    "CONCAT_EMBEDDINGS", "SKIP_GRAM", "CALL", "CUSTOM", "EMBEDDING_LOOKUP_SPARSE", "PAD",
    "UNIDIRECTIONAL_SEQUENCE_RNN", "GATHER", "BATCH_TO_SPACE_ND", "SPACE_TO_BATCH_ND", "TRANSPOSE", "MEAN",
    "SUB", "DIV", "SQUEEZE", "UNIDIRECTIONAL_SEQUENCE_LSTM", "STRIDED_SLICE", "BIDIRECTIONAL_SEQUENCE_RNN",
    "EXP", "TOPK_V2", "SPLIT", "LOG_SOFTMAX", "DELEGATE", "BIDIRECTIONAL_SEQUENCE_LSTM", "CAST", "PRELU",
    "MAXIMUM", "ARG_MAX", "MINIMUM", "LESS", "NEG", "PADV2", "GREATER", "GREATER_EQUAL", "LESS_EQUAL",
    "SELECT", "SLICE", "SIN", "TRANSPOSE_CONV", "SPARSE_TO_DENSE", "TILE", "EXPAND_DIMS", "EQUAL", "NOT_EQUAL",
    "LOG", "SUM", "SQRT", "RSQRT", "SHAPE", "POW", "ARG_MIN", "FAKE_QUANT", "REDUCE_PROD", "REDUCE_MAX",
    "PACK", "LOGICAL_OR", "ONE_HOT", "LOGICAL_AND", "LOGICAL_NOT", "UNPACK", "REDUCE_MIN", "FLOOR_DIV",
    "REDUCE_ANY", "SQUARE", "ZEROS_LIKE", "FILL", "FLOOR_MOD", "RANGE", "RESIZE_NEAREST_NEIGHBOR", "LEAKY_RELU",
    "SQUARED_DIFFERENCE", "MIRROR_PAD", "ABS", "SPLIT_V", "UNIQUE", "CEIL", "REVERSE_V2", "ADD_N", "GATHER_ND",
    "COS", "WHERE", "RANK", "ELU", "REVERSE_SEQUENCE", "MATRIX_DIAG", "QUANTIZE", "MATRIX_SET_DIAG", "ROUND",
    "HARD_SWISH", "IF", "WHILE", "NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "SCATTER_ND", "SELECT_V2",
    "DENSIFY", "SEGMENT_SUM", "BATCH_MATMUL", "PLACEHOLDER_FOR_GREATER_OP_CODES", "CUMSUM", "CALL_ONCE",
    "BROADCAST_TO", "RFFT2D", "CONV_3D", "IMAG", "REAL", "COMPLEX_ABS", "HASHTABLE", "HASHTABLE_FIND",
    "HASHTABLE_IMPORT", "HASHTABLE_SIZE", "REDUCE_ALL", "CONV_3D_TRANSPOSE", "VAR_HANDLE", "READ_VARIABLE",
    "ASSIGN_VARIABLE", "BROADCAST_ARGS", "RANDOM_STANDARD_NORMAL", "BUCKETIZE", "RANDOM_UNIFORM",
    "MULTINOMIAL", "GELU", "DYNAMIC_UPDATE_SLICE", "RELU_0_TO_1", "UNSORTED_SEGMENT_PROD",
    "UNSORTED_SEGMENT_MAX", "UNSORTED_SEGMENT_SUM", "ATAN2", "UNSORTED_SEGMENT_MIN", "SIGN", "BITCAST",
    "BITWISE_XOR", "RIGHT_SHIFT",
];
