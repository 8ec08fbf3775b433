//! The plain way to run a quantized network: stage by stage, over whole tensors.
//!
//! It shares nothing with the executor but the kernels: no schedule, no row table, no arena. The executor
//! must equal it bit for bit, and it shows the tensors that the executor has only rows of.

use skipstone::LayerError;
use skipstone::stage::{Operation, Stage};

/// Runs `stages` on an image (raw HWC bytes) and returns the class scores, before a softmax.
///
/// `observe` sees the int8 output of every stage but the last.
///
/// # Errors
/// Where the image has the wrong length.
pub fn run(
    stages: &[Stage<'_>],
    image: &[u8],
    observe: &mut dyn FnMut(usize, &[i8]),
) -> Result<Vec<f32>, LayerError> {
    let mut tensor: Vec<i8> = image.iter().map(|pixel| (pixel ^ 0x80).cast_signed()).collect();
    let mut scores = Vec::new();
    for (index, stage) in stages.iter().enumerate() {
        let mut output = vec![0; stage.output().len()];
        if let Some(block) = stage.block() {
            block.run(&tensor, &mut vec![0; block.scratch_len()], &mut output)?;
        } else {
            for layer in stage.layers(0, 1) {
                match layer.operation {
                    Operation::Reduction(layer) => {
                        scores = vec![0.0; output.len()];
                        layer.run(&tensor, &mut vec![0; output.len()], &mut output, &mut scores)?;
                    }
                    Operation::Windowed(layer) | Operation::Addition(layer, _) => {
                        layer.run(&tensor, &mut vec![0; layer.scratch_len()], &mut output)?;
                    }
                }
            }
        }
        if !stage.gives_scores() {
            observe(index, &output);
        }
        tensor = output;
    }
    Ok(scores)
}
