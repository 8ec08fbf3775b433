//! Gives the convolutions of a quantized network their algorithms, and the weights that those want.

use anyhow::{Context, Result};
use skipstone::stage::{Layer, Stage};
use skipstone::{Algorithm, Conv2d, SECTION_ALIGN, schema};

use crate::blob::{Unplanned, Weights};

impl Unplanned {
    /// The network with these algorithms, one for each layer in the order of the plan (what is no
    /// convolution has one that does not matter). All its algorithms are [`Algorithm::Reference`] before.
    ///
    /// # Errors
    /// Where there are too few of them.
    pub fn with_algorithms(&self, algorithms: &[Algorithm]) -> Result<Unplanned> {
        let (records, bytes) = self.encode()?;
        let count = u16::try_from(self.names.len()).context("a network has at most 65535 stages")?;
        let mut copy = Copy { from: &bytes, to: Weights::default() };
        let mut algorithms = algorithms.iter().copied();
        let mut operations = Vec::new();
        for entry in skipstone::Stages::new(&records, count, &bytes, self.input) {
            let entry = entry.context("the quantized network is inconsistent")?;
            let layers: Vec<Layer<'_>> = entry.stage.layers(0, 1).collect();
            let mut operation = entry.record.operation;
            let mut chosen = layers.iter().map(|layer| (layer, algorithms.next()));
            match &mut operation {
                schema::Operation::Conv2d(record) => copy.conv2d(record, chosen.next())?,
                schema::Operation::Pool2d(_) => _ = chosen.next(),
                schema::Operation::Dense(record) => {
                    let inputs = entry_inputs(&entry.stage);
                    let outputs = usize::from(record.outputs);
                    record.weights = copy.section(record.weights, inputs * outputs);
                    record.bias = copy.section(record.bias, 4 * outputs);
                    copy.finish(&mut record.finish);
                    _ = chosen.next();
                }
                schema::Operation::GlobalAveragePool(record) => {
                    copy.finish(&mut record.finish);
                    _ = chosen.next();
                }
                schema::Operation::Block(record) => {
                    // the path but its last, the projection, the last
                    let inner = record.path.len().saturating_sub(1);
                    for record in record.path.iter_mut().take(inner) {
                        copy.conv2d(record, chosen.next())?;
                    }
                    if let schema::Shortcut::Projection(record) = &mut record.shortcut {
                        copy.conv2d(record, chosen.next())?;
                    }
                    if let Some(record) = record.path.last_mut() {
                        copy.conv2d(record, chosen.next())?;
                    }
                }
            }
            operations.push(operation);
        }
        Ok(Unplanned { operations, weights: copy.to, ..self.clone() })
    }
}

fn entry_inputs(stage: &Stage<'_>) -> usize {
    stage.input().len()
}

/// Copies the sections that records refer to.
struct Copy<'b> {
    from: &'b [u8],
    to: Weights,
}

impl Copy<'_> {
    fn section(&mut self, offset: u32, bytes: usize) -> u32 {
        let start = offset as usize;
        debug_assert!(start.is_multiple_of(SECTION_ALIGN));
        self.to.section(&self.from[start..start + bytes])
    }

    fn requantize(&mut self, record: &mut schema::Requantize, count: usize) {
        record.multipliers = self.section(record.multipliers, 4 * count);
        if let schema::Rounding::Twice { shifts } = &mut record.rounding {
            *shifts = self.section(*shifts, count);
        }
    }

    fn finish(&mut self, finish: &mut schema::Finish) {
        match finish {
            schema::Finish::Requantize { count, requantize, .. }
            | schema::Finish::RoundedScores { count, requantize, .. } => {
                self.requantize(requantize, usize::from(*count));
            }
            schema::Finish::Scores { scales, count } => {
                *scales = self.section(*scales, 4 * usize::from(*count))
            }
            schema::Finish::Mean { .. } => {}
        }
    }

    fn conv2d(
        &mut self,
        record: &mut schema::Conv2d,
        chosen: Option<(&Layer<'_>, Option<Algorithm>)>,
    ) -> Result<()> {
        let Some((layer, Some(algorithm))) = chosen else {
            anyhow::bail!("there are fewer algorithms than layers");
        };
        let layer = layer.convolution().context("a convolution's layer is none")?;
        let (window, input, outputs) = (&record.window, layer.input(), record.channels);
        let bytes = |algorithm| Conv2d::weight_bytes(window, input, outputs, record.depthwise, algorithm);
        let start = record.weights as usize;
        let plain: &[i8] = bytemuck::cast_slice(&self.from[start..start + bytes(Algorithm::Reference)]);
        let channels = usize::from(input.channels);
        let mut words = vec![0u32; bytes(algorithm) / 4];
        record.weights = match algorithm {
            Algorithm::Direct if !record.depthwise => {
                skipstone::pack_weights(plain, window, channels, &mut words);
                self.to.section(&words)
            }
            Algorithm::Winograd | Algorithm::Winograd4 => {
                skipstone::transform_weights(plain, window, algorithm, channels, &mut words);
                self.to.section(&words)
            }
            _ => self.to.section(plain),
        };
        record.algorithm = algorithm;
        let outputs = usize::from(outputs);
        record.bias = self.section(record.bias, 4 * outputs);
        record.padding_pixel = self.section(record.padding_pixel, channels);
        self.requantize(&mut record.requantize, outputs);
        Ok(())
    }
}
