//! Operators over positions: pooling, means, padding, slicing, joining channels, softmax.

use skipstone::Shape;

use super::{At, Lowering, State, Tensor, layer_name};
use crate::front::arrangement::{Arrangement, Axis};
use crate::front::error::{ErrorKind, Refusal};
use crate::front::fold;
use crate::front::graph::{Data, Padding, Sliding};
use crate::ir::{Operation, TensorId, Window};

/// A window, and whether rounding up its number of positions made it reach past the padding.
pub(super) struct Placed {
    pub(super) window: Window,
    extended: bool,
}

impl Lowering {
    /// The first input, an image in the graph's layout.
    pub(super) fn image<'s>(&self, at: At<'_>, inputs: &'s [Option<State>]) -> Result<&'s Tensor, Refusal> {
        let tensor = self.tensor(at, inputs, 0)?;
        if tensor.arrangement.layout(self.graph.layout) == Some(self.graph.layout) {
            return Ok(tensor);
        }
        let dims = tensor.arrangement.dims();
        let reason = format!("reads a tensor of sizes {dims:?} that is not an image in the expected layout");
        Err(Refusal::new(ErrorKind::Operator, at.place, reason))
    }

    /// The result of a layer over the positions of `input`, an image.
    pub(super) fn as_image(&self, id: TensorId, input: &Tensor) -> Tensor {
        let batch = input.arrangement.batch();
        let arrangement = Arrangement::image(self.graph.layout, batch, self.network.shape(id));
        Tensor { id, arrangement }
    }

    /// The window with its padding worked out for an input of this shape.
    pub(super) fn window(
        &self,
        at: At<'_>,
        sliding: &Sliding,
        kernel: [usize; 2],
        input: Shape,
    ) -> Result<Placed, Refusal> {
        let damaged = |reason: String| Refusal::new(ErrorKind::Damaged, at.place, reason);
        let pair = |list: &[usize], name: &str| match *list {
            [] => Ok([1, 1]),
            [vertical, horizontal] => Ok([vertical, horizontal]),
            _ => Err(damaged(format!("has {} {name} for two axes", list.len()))),
        };
        let stride = pair(&sliding.strides, "strides")?;
        let dilation = pair(&sliding.dilations, "dilations")?;
        if (0..2).any(|axis| dilation[axis] != 1 && kernel[axis] != 1) {
            let reason = format!("is dilated by {} x {}", dilation[0], dilation[1]);
            return Err(Refusal::new(ErrorKind::Operator, at.place, reason)
                .help("dilated kernels are not supported: train with dilation 1, or a stride instead"));
        }
        if kernel.contains(&0) || stride.contains(&0) {
            return Err(damaged("has a kernel or stride of 0".into()));
        }
        let sizes = [input.height, input.width].map(usize::from);
        let mut padding = match &sliding.padding {
            Padding::Explicit(list) => match list[..] {
                [] => [0; 4],
                [top, left, bottom, right] => [top, left, bottom, right],
                _ => return Err(damaged(format!("has {} pads for two axes", list.len()))),
            },
            Padding::Same { upper } => Window::same_padding(sizes, kernel, stride, *upper),
        };
        let mut extended = false;
        for axis in (0..2).filter(|_| sliding.ceil) {
            let start = sizes[axis] + padding[axis];
            let Some(room) = (start + padding[axis + 2]).checked_sub(kernel[axis]) else { continue };
            let mut last = room.div_ceil(stride[axis]) * stride[axis];
            // A window that would begin past the image does not count.
            if last >= start {
                last -= stride[axis];
            }
            let end = (last + kernel[axis]).saturating_sub(start);
            if end > padding[axis + 2] {
                padding[axis + 2] = end;
                extended = true;
            }
        }
        Ok(Placed { window: Window { kernel, stride, padding }, extended })
    }

    fn pooling(&self, at: At<'_>, sliding: &Sliding, input: Shape) -> Result<Placed, Refusal> {
        match sliding.kernel[..] {
            [height, width] => self.window(at, sliding, [height, width], input),
            _ => {
                let reason = format!("has a kernel of {} axes", sliding.kernel.len());
                Err(Refusal::new(ErrorKind::Operator, at.place, reason)
                    .help("pooling over height and width is possible"))
            }
        }
    }

    pub(super) fn max_pool(
        &mut self,
        at: At<'_>,
        inputs: &[Option<State>],
        sliding: &Sliding,
    ) -> Result<Tensor, Refusal> {
        let input = self.image(at, inputs)?.clone();
        // The positions that rounding up adds never win, as padding does not.
        let window = self.pooling(at, sliding, self.network.shape(input.id))?.window;
        self.pool(at, &input, window, Operation::MaxPool(window))
    }

    pub(super) fn average_pool(
        &mut self,
        at: At<'_>,
        inputs: &[Option<State>],
        sliding: &Sliding,
        count_include_pad: bool,
    ) -> Result<Tensor, Refusal> {
        let input = self.image(at, inputs)?.clone();
        let shape = self.network.shape(input.id);
        let Placed { window, extended } = self.pooling(at, sliding, shape)?;
        if extended && count_include_pad {
            let reason = "rounds its output's size up while padding counts in the mean";
            return Err(Refusal::new(ErrorKind::Operator, at.place, reason)
                .help("set ceil_mode or count_include_pad to false"));
        }
        if window.kernel == [shape.height, shape.width].map(usize::from) && window.padding == [0; 4] {
            return self.pool(at, &input, window, Operation::GlobalAveragePool);
        }
        self.pool(at, &input, window, Operation::AveragePool { window, count_include_pad })
    }

    fn pool(
        &mut self,
        at: At<'_>,
        input: &Tensor,
        window: Window,
        operation: Operation,
    ) -> Result<Tensor, Refusal> {
        let stride = window.stride;
        let operation = if window.is_point() { Operation::Subsample { stride } } else { operation };
        let name = layer_name(&self.graph, at.node, None);
        let id = self.network.add(name, at.place, &[input.id], operation)?;
        Ok(self.as_image(id, input))
    }

    pub(super) fn global_average_pool(
        &mut self,
        at: At<'_>,
        inputs: &[Option<State>],
    ) -> Result<Tensor, Refusal> {
        let input = self.image(at, inputs)?.clone();
        let name = layer_name(&self.graph, at.node, None);
        let id = self.network.add(name, at.place, &[input.id], Operation::GlobalAveragePool)?;
        Ok(self.as_image(id, &input))
    }

    /// A mean over height and width is global average pooling, over one of them an average pooling.
    pub(super) fn mean(
        &mut self,
        at: At<'_>,
        inputs: &[Option<State>],
        keep: bool,
    ) -> Result<Tensor, Refusal> {
        let input = self.tensor(at, inputs, 0)?.clone();
        let rank = input.arrangement.rank();
        let axes = self.integers(at, inputs, 1)?.filter(|axes| !axes.is_empty());
        let axes: Result<Vec<usize>, String> = match axes {
            Some(axes) => axes.iter().map(|&axis| fold::axis(axis, rank)).collect(),
            None => Ok((0..rank).collect()),
        };
        let axes = axes.map_err(|reason| Refusal::new(ErrorKind::Damaged, at.place, reason))?;
        let parts: Vec<Axis> = axes.iter().flat_map(|&dim| input.arrangement.parts(dim)).collect();
        if parts.contains(&Axis::Channel) || parts.contains(&Axis::Batch) {
            let dims = input.arrangement.dims();
            let reason = format!("averages axes {axes:?} of a tensor of sizes {dims:?}");
            return Err(Refusal::new(ErrorKind::Operator, at.place, reason)
                .help("means over height and width are possible"));
        }
        let shape = self.network.shape(input.id);
        let (rows, columns) = (parts.contains(&Axis::Height), parts.contains(&Axis::Width));
        let kernel =
            [if rows { shape.height.into() } else { 1 }, if columns { shape.width.into() } else { 1 }];
        let operation = if kernel == [shape.height, shape.width].map(usize::from) {
            Operation::GlobalAveragePool
        } else {
            let window = Window { kernel, stride: [1; 2], padding: [0; 4] };
            Operation::AveragePool { window, count_include_pad: false }
        };
        let name = layer_name(&self.graph, at.node, None);
        let id = self.network.add(name, at.place, &[input.id], operation)?;
        let arrangement = input.arrangement.with_shape(self.network.shape(id));
        let arrangement = if keep { arrangement } else { arrangement.without(&axes) };
        Ok(Tensor { id, arrangement })
    }

    pub(super) fn softmax(
        &mut self,
        at: At<'_>,
        inputs: &[Option<State>],
        axis: i64,
        logarithm: bool,
    ) -> Result<Tensor, Refusal> {
        let input = self.tensor(at, inputs, 0)?.clone();
        let rank = input.arrangement.rank();
        let dim =
            fold::axis(axis, rank).map_err(|reason| Refusal::new(ErrorKind::Damaged, at.place, reason))?;
        let shape = self.network.shape(input.id);
        let parts = input.arrangement.parts(dim);
        let over_channels = parts == [Axis::Channel] || shape.channels == 1;
        if (shape.height, shape.width) != (1, 1) || !over_channels {
            let reason = format!("is taken over axis {dim} of sizes {:?}", input.arrangement.dims());
            return Err(Refusal::new(ErrorKind::Operator, at.place, reason)
                .help("a softmax over the class scores, as the last layer, is possible"));
        }
        self.keep(at, &input, Operation::Softmax { logarithm })
    }

    pub(super) fn pad(
        &mut self,
        at: At<'_>,
        inputs: &[Option<State>],
        constant: bool,
    ) -> Result<Tensor, Refusal> {
        let input = self.tensor(at, inputs, 0)?.clone();
        if !constant {
            return Err(Refusal::new(ErrorKind::Operator, at.place, "repeats or mirrors the image's edge")
                .help("padding here is with zeros: use padding_mode='zeros'"));
        }
        let damaged = |reason: String| Refusal::new(ErrorKind::Damaged, at.place, reason);
        let rank = input.arrangement.rank();
        let counts = self.integers(at, inputs, 1)?.ok_or_else(|| damaged("has no counts".into()))?;
        let axes = match self.integers(at, inputs, 3)? {
            Some(axes) => axes.iter().map(|&a| fold::axis(a, rank)).collect::<Result<_, _>>(),
            None => Ok((0..rank).collect::<Vec<_>>()),
        };
        let axes = axes.map_err(damaged)?;
        if counts.len() != 2 * axes.len() {
            return Err(damaged(format!("has {} counts for {} axes", counts.len(), axes.len())));
        }
        let (mut padding, mut channels) = ([0; 4], [0; 2]);
        for (index, &dim) in axes.iter().enumerate() {
            let [before, after] = [counts[index], counts[index + axes.len()]];
            if [before, after] == [0, 0] {
                continue;
            }
            let count = |count: i64| {
                usize::try_from(count).ok().filter(|&c| c <= usize::from(u16::MAX)).ok_or_else(|| {
                    let reason = format!("adds {count} positions along axis {dim}");
                    Refusal::new(ErrorKind::Operator, at.place, reason)
                        .help("cropping is not supported: crop the images before the network")
                })
            };
            let [before, after] = [count(before)?, count(after)?];
            match input.arrangement.axis(dim, self.graph.layout) {
                Some(Axis::Height) => (padding[0], padding[2]) = (before, after),
                Some(Axis::Width) => (padding[1], padding[3]) = (before, after),
                Some(Axis::Channel) => channels = [before, after],
                _ => {
                    let reason = format!("pads axis {dim} of {:?}", input.arrangement.dims());
                    return Err(Refusal::new(ErrorKind::Operator, at.place, reason));
                }
            }
        }
        let value = match self.constant(at, inputs, 2)? {
            Some((constant, _)) => match &constant.data {
                Data::Float(values) => values.first().map_or(0.0, |&v| v.into()),
                Data::Integer(values) => values.first().map_or(0.0, |&v| v as f64),
            },
            None => 0.0,
        };
        if padding == [0; 4] && channels == [0; 2] {
            return Ok(input);
        }
        self.keep(at, &input, Operation::Pad { padding, channels, value })
    }

    /// Every n-th row and column (the padded shortcut's `x[:, :, ::2, ::2]`).
    pub(super) fn slice(&mut self, at: At<'_>, inputs: &[Option<State>]) -> Result<Tensor, Refusal> {
        let input = self.tensor(at, inputs, 0)?.clone();
        let dims = input.arrangement.dims();
        let damaged = |reason: String| Refusal::new(ErrorKind::Damaged, at.place, reason);
        let missing = || damaged("has no starts or ends".into());
        let starts = self.integers(at, inputs, 1)?.ok_or_else(missing)?;
        let ends = self.integers(at, inputs, 2)?.ok_or_else(missing)?;
        let axes = self.integers(at, inputs, 3)?;
        let steps = self.integers(at, inputs, 4)?;
        let ranges = fold::ranges(&dims, &starts, &ends, axes, steps).map_err(damaged)?;
        let mut stride = [1; 2];
        for (dim, range) in ranges.iter().enumerate() {
            let step = usize::try_from(range.step).unwrap_or(0);
            let whole = range.start == 0 && step > 0 && range.count == dims[dim].div_ceil(step);
            if whole && (step == 1 || dims[dim] == 1) {
                continue;
            }
            match input.arrangement.axis(dim, self.graph.layout) {
                Some(Axis::Height) if whole => stride[0] = step,
                Some(Axis::Width) if whole => stride[1] = step,
                _ => {
                    let reason = format!(
                        "takes {} of {} positions along axis {dim}, from {} in steps of {}",
                        range.count, dims[dim], range.start, range.step
                    );
                    return Err(Refusal::new(ErrorKind::Operator, at.place, reason)
                        .help("every n-th row and column from the first is possible (a strided shortcut)"));
                }
            }
        }
        if stride == [1, 1] {
            return Ok(input);
        }
        self.keep(at, &input, Operation::Subsample { stride })
    }

    /// Channels of zeros in front or behind, joined instead of padded; nothing else is joined.
    pub(super) fn concat(
        &mut self,
        at: At<'_>,
        inputs: &[Option<State>],
        axis: i64,
    ) -> Result<Tensor, Refusal> {
        let refused = || {
            let reason = "joins tensors, which is not supported";
            Refusal::new(ErrorKind::Operator, at.place, reason)
                .help("residual networks add their branches; DenseNet and Inception join them")
        };
        let mut tensors = inputs.iter().flatten().filter_map(|input| match input {
            State::Tensor(tensor) => Some(tensor),
            State::Constant(_) => None,
        });
        let (Some(input), None) = (tensors.next(), tensors.next()) else { return Err(refused()) };
        let input = input.clone();
        let dims = input.arrangement.dims();
        let dim = fold::axis(axis, dims.len()).map_err(|_| refused())?;
        if input.arrangement.axis(dim, self.graph.layout) != Some(Axis::Channel) {
            return Err(refused());
        }
        let (mut channels, mut side) = ([0; 2], 0);
        for state in inputs.iter().flatten() {
            let State::Constant(constant) = state else {
                side = 1;
                continue;
            };
            let zeros = matches!(&constant.data, Data::Float(values) if values.iter().all(|&v| v == 0.0));
            let fits = constant.dims.len() == dims.len()
                && (0..dims.len()).all(|d| d == dim || constant.dims[d] == dims[d]);
            if !zeros || !fits {
                return Err(refused());
            }
            channels[side] += constant.dims[dim];
        }
        self.keep(at, &input, Operation::Pad { padding: [0; 4], channels, value: 0.0 })
    }
}
