//! Weights into the network's order: convolutions from OIHW to OHWI, dense layers' features to HWC.

use skipstone::Shape;

use super::arrangement::Axis;

/// OIHW weights as OHWI; a depthwise convolution's \[channel, 1, H, W\] as HWC.
pub(crate) fn convolution<T: Copy + Default>(weights: &[T], dims: [usize; 4], depthwise: bool) -> Vec<T> {
    let [outputs, inputs, height, width] = dims;
    let positions = height * width;
    let mut ordered = vec![T::default(); weights.len()];
    for (index, &weight) in weights.iter().enumerate() {
        let (filter, position) = (index / positions, index % positions);
        let target = if depthwise {
            position * outputs + filter
        } else {
            let (output, input) = (filter / inputs, filter % inputs);
            (output * positions + position) * inputs + input
        };
        ordered[target] = weight;
    }
    ordered
}

/// For each feature in HWC order, its place in a tensor flattened with its axes in this order.
pub(crate) fn features(axes: &[Axis], shape: Shape) -> Vec<usize> {
    let [height, width, channels] = [shape.height, shape.width, shape.channels].map(usize::from);
    let (mut steps, mut step) = ([0; 3], 1);
    for axis in axes.iter().rev() {
        let (index, size) = match axis {
            Axis::Height => (0, height),
            Axis::Width => (1, width),
            Axis::Channel => (2, channels),
            Axis::Batch => continue,
        };
        steps[index] = step;
        step *= size;
    }
    let mut places = Vec::with_capacity(shape.len());
    for row in 0..height {
        for column in 0..width {
            places.extend((0..channels).map(|c| row * steps[0] + column * steps[1] + c * steps[2]));
        }
    }
    places
}

/// A dense layer's weights, output by input; `features` are the places of its inputs in the file's order,
/// and `outputs_first` says whether that is output by input too.
pub(crate) fn dense<T: Copy>(
    weights: &[T],
    features: &[usize],
    outputs: usize,
    outputs_first: bool,
) -> Vec<T> {
    let at = |output: usize, feature: usize| match outputs_first {
        true => output * features.len() + feature,
        false => feature * outputs + output,
    };
    (0..outputs)
        .flat_map(|output| features.iter().map(move |&feature| weights[at(output, feature)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oihw_becomes_ohwi() {
        let weights: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let ordered = convolution(&weights, [2, 3, 1, 2], false);
        assert_eq!(ordered, [0., 2., 4., 1., 3., 5., 6., 8., 10., 7., 9., 11.]);
        assert_eq!(convolution(&weights[..6], [3, 1, 1, 2], true), [0., 2., 4., 1., 3., 5.]);
    }

    #[test]
    fn features_come_from_where_they_were() {
        let shape = Shape::new(1, 2, 3);
        let chw = [Axis::Channel, Axis::Height, Axis::Width];
        assert_eq!(features(&chw, shape), [0, 2, 4, 1, 3, 5]);
        let hwc = [Axis::Height, Axis::Width, Axis::Channel];
        assert_eq!(features(&hwc, shape), [0, 1, 2, 3, 4, 5]);
    }
}
