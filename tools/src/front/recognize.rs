//! From layers to the network: chains become stages, a fork whose branches meet in an addition becomes a residual block.
//!
//! What may stand in a branch and what a stage fuses is in `recognize/elements.rs`. A block is
//! recognised by its shape alone, whichever operand of the addition is the path:
//!
//! ```text
//!          .--> convolution --> convolution [--> convolution] --.
//! fork ----|                                                    +--> addition --> ReLU?
//!          '--> nothing | 1 x 1 convolution | subsample, zero --'
//!               identity  convolutional       channels: padded
//! ```

mod elements;
mod trim;

use super::affine::Affine;
use super::error::{ErrorKind, Refusal};
use super::layers::{INPUT, LayerId, Layers, Operation};
use crate::network::{
    Activation, Block, Conv2d, LayerScales, Part, Pool2d, Quantized, Shortcut, Stage, TensorId, TensorScale,
};
use elements::{Element, Piece, square};

/// The network's stages and what leads to them.
#[derive(Debug)]
pub(crate) struct Recognized {
    /// What the model does to its input before the first stage.
    pub(crate) normalisation: Option<Affine>,
    pub(crate) stages: Vec<Stage>,
    /// What was recognised, a line for each stage.
    pub(crate) notes: Vec<String>,
    /// What the file has quantized already.
    pub(crate) quantized: Quantized,
}

/// The stages that make `output`.
pub(crate) fn recognize(layers: &Layers, output: LayerId) -> Result<Recognized, Refusal> {
    let walk = Walk { layers, readers: readers(layers, output) };
    let mut found = Recognized {
        normalisation: None,
        stages: Vec::new(),
        notes: Vec::new(),
        quantized: Quantized::default(),
    };
    found.note_scale(TensorId::INPUT, layers.get(INPUT).scale);
    let mut at = INPUT;
    loop {
        at = match walk.readers[at][..] {
            [] => break,
            [next] => {
                let piece = walk.piece(next)?;
                found.stage(&walk, piece)?
            }
            [left, right] => {
                let (block, last) = walk.block(at, left, right, &mut found)?;
                found.notes.push(String::new());
                found.stages.push(Stage::Block(block));
                last
            }
            ref many => {
                let reason = format!("its result is read by {} nodes", many.len());
                return Err(walk
                    .refuse(ErrorKind::Topology, at, reason)
                    .help("a residual block has two branches that meet in one addition of two tensors"));
            }
        };
    }
    if found.stages.is_empty() {
        return Err(Refusal::new(ErrorKind::Topology, "", "has no layers"));
    }
    found.name_blocks();
    Ok(found)
}

/// For each layer, those that read it and are needed for `output`.
fn readers(layers: &Layers, output: LayerId) -> Vec<Vec<LayerId>> {
    let mut readers = vec![Vec::new(); layers.len()];
    let mut needed = vec![false; layers.len()];
    needed[output] = true;
    for layer in (0..=output).rev().filter(|&layer| layer != INPUT) {
        if needed[layer] {
            for &input in &layers.get(layer).inputs {
                needed[input] = true;
                readers[input].push(layer);
            }
        }
    }
    readers
}

impl Recognized {
    /// Adds what was found as a stage; the layer that it ends with is returned.
    fn stage(&mut self, walk: &Walk<'_>, piece: Piece) -> Result<LayerId, Refusal> {
        let Piece { first, last, element, mut note, scales } = piece;
        let scale = walk.layers.get(last).scale;
        if let Some(Stage::Softmax) = self.stages.last() {
            let reason = "follows a softmax, which can only be the last layer";
            return Err(walk.refuse(ErrorKind::Topology, first, reason));
        }
        let stage = match element {
            Element::Convolution(conv) => Stage::Conv2d(conv),
            Element::Dense(dense) => Stage::Dense(dense),
            Element::MaxPool(pool) => Stage::MaxPool2d(pool),
            Element::AveragePool(pool) => {
                if trim::to_only_window(&mut self.stages, walk.layers.shape(INPUT), &pool) {
                    note = format!(
                        "{}: global average pooling of the first {}, beyond which nothing is computed",
                        pool.name,
                        square(pool.kernel)
                    );
                    Stage::GlobalAveragePool { name: pool.name }
                } else {
                    Stage::AveragePool2d(pool)
                }
            }
            Element::GlobalAveragePool { name } => Stage::GlobalAveragePool { name },
            // The maximum over windows of one position.
            Element::Subsample { name, stride } => Stage::MaxPool2d(Pool2d {
                name,
                kernel: [1; 2],
                stride,
                padding: [0; 4],
                count_include_pad: false,
            }),
            Element::Softmax => Stage::Softmax,
            Element::Affine(affine) if self.stages.is_empty() && self.normalisation.is_none() => {
                self.notes.push(note);
                self.normalisation = Some(affine);
                self.quantized.tensors.remove(&TensorId::INPUT);
                self.note_scale(TensorId::INPUT, scale);
                return Ok(last);
            }
            Element::Clamp(activation) if self.activate(activation) => return Ok(last),
            Element::Affine(_) => return Err(walk.lone_affine(first)),
            Element::Clamp(_) => {
                let reason = "an activation that follows no convolution, dense layer or addition";
                return Err(walk
                    .refuse(ErrorKind::Topology, first, reason)
                    .help("activations are fused into the layer before them"));
            }
            Element::ZeroChannels { .. } => {
                let reason = "adds zero channels outside of a block's shortcut";
                return Err(walk.refuse(ErrorKind::Topology, first, reason));
            }
        };
        let output = self.tensor(Part::Output);
        self.note_scale(output, scale);
        self.note_scales(output, scales);
        self.notes.push(note);
        self.stages.push(stage);
        Ok(last)
    }

    /// A tensor of the stage that is added next.
    fn tensor(&self, part: Part) -> TensorId {
        TensorId { stage: self.stages.len(), part }
    }

    fn note_scale(&mut self, tensor: TensorId, scale: Option<TensorScale>) {
        self.quantized.tensors.extend(scale.map(|scale| (tensor, scale)));
    }

    fn note_scales(&mut self, tensor: TensorId, scales: Option<LayerScales>) {
        self.quantized.layers.extend(scales.map(|scales| (tensor, scales)));
    }

    /// An activation after a max pooling is the same before it: both are monotone.
    fn activate(&mut self, new: Activation) -> bool {
        let mut before = self.stages.iter_mut().rev();
        let activation = match before.find(|stage| !matches!(stage, Stage::MaxPool2d(_))) {
            Some(Stage::Conv2d(conv)) => &mut conv.activation,
            Some(Stage::Block(block)) => &mut block.activation,
            _ => return false,
        };
        let free = *activation == Activation::None;
        if free {
            *activation = new;
        }
        free
    }

    /// Where modules' names tell the blocks apart, they stay; else blocks are numbered.
    fn name_blocks(&mut self) {
        let mut blocks: Vec<&mut Block> = self
            .stages
            .iter_mut()
            .filter_map(|stage| if let Stage::Block(block) = stage { Some(block) } else { None })
            .collect();
        let mut names: Vec<String> = blocks.iter().map(|block| block.name.clone()).collect();
        names.sort();
        let distinct = names.windows(2).all(|pair| pair[0] != pair[1]);
        if !distinct || names.iter().any(String::is_empty) {
            for (index, block) in blocks.iter_mut().enumerate() {
                block.name = format!("block{}", index + 1);
            }
        }
        // A block's note waits for its name.
        let waiting = self.notes.iter_mut().filter(|note| note.is_empty());
        for (note, block) in waiting.zip(&blocks) {
            *note = block_note(block);
        }
    }
}

struct Walk<'a> {
    layers: &'a Layers,
    readers: Vec<Vec<LayerId>>,
}

impl Walk<'_> {
    fn refuse(&self, kind: ErrorKind, layer: LayerId, reason: impl Into<String>) -> Refusal {
        Refusal::new(kind, &self.layers.get(layer).place, reason)
    }

    /// The block that begins at `fork` and the layer that it ends with; what is quantized is noted.
    fn block(
        &self,
        fork: LayerId,
        left: LayerId,
        right: LayerId,
        found: &mut Recognized,
    ) -> Result<(Block, LayerId), Refusal> {
        let (left, join) = self.branch(left)?;
        let (right, other) = self.branch(right)?;
        let place = &self.layers.get(join).place;
        let from = &self.layers.get(fork).place;
        let refuse = |reason: String| Refusal::new(ErrorKind::Topology, place, reason);
        if join != other {
            let other = &self.layers.get(other).place;
            let reason = format!("the branches from {from} do not meet here: the other goes to {other}");
            return Err(refuse(reason).help("blocks cannot overlap or lie in each other"));
        }
        let convolutions =
            |branch: &[Piece]| branch.iter().filter(|p| matches!(p.element, Element::Convolution(_))).count();
        let (path, shortcut) =
            if convolutions(&left) < convolutions(&right) { (right, left) } else { (left, right) };
        if convolutions(&shortcut) > 1 || convolutions(&path) == convolutions(&shortcut) {
            let (a, b) = (convolutions(&path), convolutions(&shortcut));
            let reason = format!("its branches from {from} have {a} and {b} convolutions");
            return Err(refuse(reason)
                .help("a block's path has two or three convolutions, its shortcut none or one of 1 x 1"));
        }
        let parts = (0..).map(Part::Path).zip(&path);
        for (part, piece) in parts.chain(shortcut.iter().map(|piece| (Part::Projection, piece))) {
            let tensor = found.tensor(part);
            found.note_scale(tensor, self.layers.get(piece.last).scale);
            found.note_scales(tensor, piece.scales.clone());
        }
        let path = self.path(path, join)?;
        let shortcut = self.shortcut(shortcut, join)?;
        let (clamp, last) = self.clamps(join);
        let activation = self.activation(clamp, last)?;
        let output = found.tensor(Part::Output);
        found.note_scale(output, self.layers.get(last).scale);
        let name = common_module(&path);
        Ok((Block { name, path, shortcut, activation }, last))
    }

    /// What lies between a fork and the addition that a branch leads to.
    fn branch(&self, first: LayerId) -> Result<(Vec<Piece>, LayerId), Refusal> {
        let mut pieces = Vec::new();
        let mut at = first;
        loop {
            if matches!(self.layers.get(at).operation, Operation::Add) {
                return Ok((pieces, at));
            }
            let piece = self.piece(at)?;
            at = match self.readers[piece.last][..] {
                [next] => next,
                [] => {
                    let reason = "a branch ends here and meets no other";
                    return Err(self.refuse(ErrorKind::Topology, piece.last, reason));
                }
                _ => {
                    let reason = "a branch of a block forks again here";
                    return Err(self
                        .refuse(ErrorKind::Topology, piece.last, reason)
                        .help("blocks cannot overlap or lie in each other"));
                }
            };
            pieces.push(piece);
        }
    }

    fn path(&self, pieces: Vec<Piece>, join: LayerId) -> Result<Vec<Conv2d>, Refusal> {
        let mut path = Vec::new();
        let mut last = None;
        for piece in pieces {
            last = Some(piece.last);
            match piece.element {
                Element::Convolution(conv) => path.push(conv),
                Element::Affine(_) => return Err(self.lone_affine(piece.first)),
                _ => {
                    let reason = "cannot stand in the path of a residual block";
                    return Err(self
                        .refuse(ErrorKind::Topology, piece.first, reason)
                        .help("a path is two or three convolutions with batch norm and ReLU"));
                }
            }
        }
        if !(2..=3).contains(&path.len()) {
            let count = path.len();
            let reason = format!("adds a path of {count} convolution{}", if count == 1 { "" } else { "s" });
            return Err(self
                .refuse(ErrorKind::Topology, join, reason)
                .help("residual blocks here have two or three convolutions in their path"));
        }
        if let (Some(conv), Some(last)) = (path.last(), last)
            && conv.activation != Activation::None
        {
            let reason = "an activation between the path's last convolution and the addition";
            return Err(self
                .refuse(ErrorKind::Topology, last, reason)
                .help("the activation follows the addition in the blocks that are possible here"));
        }
        Ok(path)
    }

    fn shortcut(&self, mut pieces: Vec<Piece>, join: LayerId) -> Result<Shortcut, Refusal> {
        if pieces.is_empty() {
            return Ok(Shortcut::Identity);
        }
        if let [Piece { element: Element::Convolution(conv), last, .. }] = &pieces[..] {
            if conv.kernel != [1, 1] || conv.padding != [0; 4] || conv.depthwise {
                let reason = format!("a {} convolution on the shortcut", elements::kernel(conv));
                return Err(self
                    .refuse(ErrorKind::Topology, *last, reason)
                    .help("a projection is a 1 x 1 convolution without padding"));
            }
            if conv.activation != Activation::None {
                let reason = "an activation on the shortcut";
                return Err(self
                    .refuse(ErrorKind::Topology, *last, reason)
                    .help("a projection is a 1 x 1 convolution and batch norm"));
            }
            let Some(Piece { element: Element::Convolution(conv), .. }) = pieces.pop() else {
                return Ok(Shortcut::Identity);
            };
            return Ok(Shortcut::Projection(conv));
        }
        let (mut stride, mut channels_before, mut seen) = ([1; 2], 0, false);
        for piece in pieces {
            match piece.element {
                Element::Subsample { stride: [vertical, horizontal], .. } => {
                    stride = elements::product(stride, [vertical, horizontal]);
                }
                Element::ZeroChannels { before, .. } if !seen => {
                    (channels_before, seen) = (before, true);
                }
                Element::Affine(_) => return Err(self.lone_affine(piece.first)),
                _ => {
                    let place = &self.layers.get(join).place;
                    let reason = format!("cannot stand on the shortcut of the block that ends at {place}");
                    return Err(self.refuse(ErrorKind::Topology, piece.first, reason).help(
                        "a shortcut is nothing, a 1 x 1 convolution with batch norm, or subsampling \
                         with zero channels; ResNet-D's pooled projection is not one of them",
                    ));
                }
            }
        }
        Ok(Shortcut::Padded { stride, channels_before })
    }

    /// Batch norm and the like that no layer before it can take in.
    fn lone_affine(&self, layer: LayerId) -> Refusal {
        let norm = match self.layers.get(layer).operation {
            Operation::Affine { norm, .. } => norm,
            _ => "a scale",
        };
        let reason = format!("{norm} that follows no convolution or dense layer cannot be folded");
        self.refuse(ErrorKind::Topology, layer, reason).help(
            "put batch norm directly behind each convolution, as in the original ResNet; \
             pre-activation networks (batch norm and ReLU before the convolution) cannot be converted",
        )
    }
}

/// The module that a path's convolutions have in common: `layer1.0` of `layer1.0.conv1` and
/// `layer1.0.conv2`.
fn common_module(path: &[Conv2d]) -> String {
    let Some(first) = path.first().map(|conv| &*conv.name) else { return String::new() };
    let ends = first.char_indices().filter(|(_, c)| matches!(c, '.' | '/')).map(|(index, _)| index);
    let shared = |end: &usize| {
        path.iter().all(|conv| {
            conv.name.starts_with(&first[..*end]) && conv.name[*end..].starts_with(&first[*end..*end + 1])
        })
    };
    first[..ends.rev().find(shared).unwrap_or(0)].to_string()
}

fn block_note(block: &Block) -> String {
    let kernels: Vec<String> = block.path.iter().map(elements::kernel).collect();
    let count = if block.path.len() == 2 { "two" } else { "three" };
    let (kind, shortcut) = match &block.shortcut {
        Shortcut::Identity => ("identity block", String::new()),
        Shortcut::Projection(conv) => {
            ("convolutional block", format!(", projection {}", elements::kernel(conv)))
        }
        Shortcut::Padded { stride, channels_before } => (
            "block with padded shortcut (option A)",
            format!(", subsampled {}, {channels_before} zero channels in front", square(*stride)),
        ),
    };
    let activation = elements::activation_note(block.activation);
    let kernels = kernels.join(", ");
    format!("{}: {kind}, {count} convolutions ({kernels}){shortcut}{activation}", block.name)
}
