//! From a pixel's byte to the first layer's input: what the caller says, what the model does itself, and what is assumed.

use super::error::{ErrorKind, Refusal};
use crate::ir::{Affine, Preprocessing, TensorScale};

/// Mean and standard deviation, and a line that says where they come from; the rules are in [`super`].
pub(crate) fn preprocessing(
    [mean, std]: [Option<Vec<f32>>; 2],
    normalisation: Option<&Affine>,
    scale: Option<TensorScale>,
    integer_input: bool,
    channels: usize,
) -> Result<(Preprocessing, String), Refusal> {
    let refuse = |reason: String| Refusal::new(ErrorKind::Preprocessing, "preprocessing", reason);
    let given = mean.is_some() || std.is_some();
    let raw = integer_input || normalisation.is_some_and(wants_raw_pixels);
    let assumed = match scale {
        _ if given => [0.0, 1.0],
        // The int8 input's whole range is the pixel's: q = pixel - 128.
        Some(TensorScale { scale, zero_point }) => {
            let [scale, zero_point] = [scale.into(), f64::from(zero_point)];
            [((zero_point + 128.0) / 255.0) as f32, (1.0 / (255.0 * scale)) as f32]
        }
        None if raw => [0.0, RAW],
        None => [0.0, 1.0],
    };
    let mean = mean.unwrap_or_else(|| vec![assumed[0]]);
    let std = std.unwrap_or_else(|| vec![assumed[1]]);
    for (name, values) in [("mean", &mean), ("std", &std)] {
        if values.len() != 1 && values.len() != channels {
            let reason = format!("{name} has {} values for {channels} channels", values.len());
            return Err(refuse(reason).help("give one value, or one for each channel"));
        }
        if let Some(value) = values.iter().find(|v| !v.is_finite() || name == "std" && **v <= 0.0) {
            let reason = format!("{name} is {value}");
            return Err(refuse(reason).help("mean and std are finite, and std is above 0"));
        }
    }
    let Some(model) = normalisation else {
        let note = match (given, scale, raw) {
            (true, ..) => format!("pixels: (pixel / 255 - {mean:?}) / {std:?}"),
            (false, Some(TensorScale { scale, zero_point }), _) => {
                let [black, white] = [-128.0, 127.0].map(|q: f32| scale * (q - f32::from(zero_point)));
                format!("pixels: pixel - 128 is the model's int8 input, of {black} to {white}")
            }
            (false, None, true) => "pixels: 0..255, as the model's integer input says".into(),
            (false, None, false) => {
                "pixels: pixel / 255, as no mean and standard deviation are given (--normalize has the usual)"
                    .into()
            }
        };
        return Ok((Preprocessing { mean, std }, note));
    };
    let mut folded = Preprocessing { mean: Vec::new(), std: Vec::new() };
    for channel in 0..channels {
        let [mean, std] = [&mean, &std].map(|list| f64::from(list[channel % list.len()]));
        // (p - mean) / std * scale + shift = (p - (mean - shift * std / scale)) / (std / scale)
        let (scale, shift) = (model.scale[channel], model.shift[channel]);
        let (mean, std) = ((mean - shift * std / scale) as f32, (std / scale) as f32);
        if !(std > 0.0 && std.is_finite() && mean.is_finite()) {
            let reason = format!("the model scales channel {channel} of its input by {scale:e}");
            return Err(refuse(reason).help("a normalisation that keeps dark below bright is possible"));
        }
        folded.mean.push(mean);
        folded.std.push(std);
    }
    let fed = match (given, raw || scale.is_some()) {
        (true, _) => "by the given mean and standard deviation, then as the model does",
        (false, true) => "the model normalises pixels of 0..255 itself",
        (false, false) => "the model normalises pixels of 0..1 itself",
    };
    let note = format!("pixels: {fed}: (pixel / 255 - {:.4?}) / {:.4?}", folded.mean, folded.std);
    Ok((folded, note))
}

/// Standard deviation that makes pixel / 255 the pixel again.
const RAW: f32 = 1.0 / 255.0;

/// Whether a normalisation x * scale + shift is made for 0..255 rather than for 0..1.
fn wants_raw_pixels(model: &Affine) -> bool {
    let means = model.scale.iter().zip(&model.shift).map(|(scale, shift)| -shift / scale);
    means.into_iter().any(|mean| mean > 1.0) || model.scale.iter().any(|&scale| scale < 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affine(scale: f64, shift: f64) -> Affine {
        Affine { scale: vec![scale], shift: vec![shift] }
    }

    fn close(preprocessing: &Preprocessing, mean: f32, std: f32) {
        let near = |a: f32, b: f32| (a - b).abs() <= 1e-6 * b.abs().max(1e-3);
        let found = (preprocessing.mean[0], preprocessing.std[0]);
        assert!(near(found.0, mean) && near(found.1, std), "{found:?}, not {:?}", (mean, std));
    }

    #[test]
    fn normalisation_in_the_model_becomes_mean_and_std() {
        let fold = |model: Affine, given: [Option<Vec<f32>>; 2]| {
            preprocessing(given, Some(&model), None, false, 1).unwrap()
        };
        // (pixel - 120) / 60
        let (raw, note) = fold(affine(1.0 / 60.0, -2.0), [None, None]);
        close(&raw, 120.0 / 255.0, 60.0 / 255.0);
        assert!(note.contains("0..255"));
        // (x - 0.485) / 0.229
        let (unit, note) = fold(affine(1.0 / 0.229, -0.485 / 0.229), [None, None]);
        close(&unit, 0.485, 0.229);
        assert!(note.contains("0..1 "));
        // x - 127 keeps raw pixels, x - 0.5 those of 0..1.
        close(&fold(affine(1.0, -127.0), [None, None]).0, 127.0 / 255.0, 1.0 / 255.0);
        close(&fold(affine(1.0, -0.5), [None, None]).0, 0.5, 1.0);
        // What is given decides: here, pixels of 0..255 are fed to a model that divides by 255.
        let given = [None, Some(vec![1.0 / 255.0])];
        close(&fold(affine(1.0 / 255.0, 0.0), given).0, 0.0, 1.0);
    }

    #[test]
    fn negative_and_degenerate_normalisations_are_refused() {
        for scale in [-1.0, 0.0, 1e-60, 1e60] {
            let refusal = preprocessing([None, None], Some(&affine(scale, 0.0)), None, false, 1).unwrap_err();
            assert_eq!(refusal.kind, ErrorKind::Preprocessing);
        }
        let bad = [
            [Some(vec![0.0; 2]), None],
            [Some(vec![f32::NAN; 3]), None],
            [None, Some(vec![0.0])],
            [None, Some(vec![-1.0])],
        ];
        for given in bad {
            let refusal = preprocessing(given, None, None, false, 3).unwrap_err();
            assert_eq!(refusal.kind, ErrorKind::Preprocessing);
        }
    }

    #[test]
    fn integer_inputs_are_raw_pixels() {
        let (raw, note) = preprocessing([None, None], None, None, true, 3).unwrap();
        assert_eq!((raw.std, note.contains("integer")), (vec![RAW], true));
        let (unit, note) = preprocessing([None, None], None, None, false, 3).unwrap();
        assert_eq!((unit.std, note.contains("no mean")), (vec![1.0], true));
    }
    #[test]
    fn an_int8_input_is_the_pixel_less_128_unless_something_else_is_given() {
        let fed = |scale, zero_point, given: [Option<Vec<f32>>; 2]| {
            preprocessing(given, None, Some(TensorScale { scale, zero_point }), true, 3).unwrap().0
        };
        close(&fed(1.0, -128, [None, None]), 0.0, RAW);
        close(&fed(RAW, -128, [None, None]), 0.0, 1.0);
        close(&fed(2.0 * RAW, -1, [None, None]), 127.0 / 255.0, 0.5);
        close(&fed(1.0, -128, [None, Some(vec![0.5])]), 0.0, 0.5);
    }
}
