//! Layers whose parameters do not fit together are refused, up to the last value that fits.

use skipstone::Shape;
use skipstone::error::LayerError;
use skipstone::host::{Clamp, Conv2d, Dense, Finish, GlobalAveragePool, Pool2d, Pooling, Requantize, Window};

const GEOMETRY: Option<LayerError> = Some(LayerError::Geometry);

fn length(needed: usize, given: usize) -> Option<LayerError> {
    Some(LayerError::Length { needed, given })
}

/// kernel, stride, padding: rows before columns; top, left, bottom, right.
fn window(kernel: [u8; 2], stride: [u8; 2], padding: [u8; 4]) -> Window {
    Window { kernel, stride, padding }
}

#[test]
fn windows() {
    let output = |window: Window, height, width| {
        window
            .output(Shape::new(height, width, 3), 5)
            .map(|shape| (shape.height, shape.width, shape.channels))
    };
    assert_eq!(output(window([3, 3], [1, 1], [1, 1, 1, 1]), 4, 9), Some((4, 9, 5)));
    assert_eq!(output(window([3, 2], [2, 3], [2, 0, 0, 1]), 4, 9), Some((2, 3, 5)));
    assert_eq!(output(window([15, 15], [7, 7], [14, 14, 14, 14]), 1, 1), Some((3, 3, 5)));
    assert_eq!(output(window([7, 1], [1, 1], [0, 0, 0, 0]), 7, 1), Some((1, 1, 5)));
    // as many rows as 16 bits count, and one more
    assert_eq!(output(window([3, 1], [1, 1], [1, 0, 1, 0]), 65_535, 1), Some((65_535, 1, 5)));
    assert_eq!(output(window([3, 1], [1, 1], [2, 0, 1, 0]), 65_535, 1), None);

    assert_eq!(output(window([7, 1], [1, 1], [0, 0, 0, 0]), 6, 1), None, "larger than the input");
    assert_eq!(output(window([1, 7], [1, 1], [0, 3, 0, 2]), 1, 1), None, "larger than the padded input");
    assert_eq!(output(window([0, 1], [1, 1], [0, 0, 0, 0]), 9, 9), None, "no rows");
    assert_eq!(output(window([1, 16], [1, 1], [0, 0, 0, 0]), 99, 99), None, "16 columns");
    assert_eq!(output(window([1, 1], [0, 1], [0, 0, 0, 0]), 9, 9), None, "no stride");
    assert_eq!(output(window([1, 1], [1, 8], [0, 0, 0, 0]), 9, 9), None, "a stride of 8");
    for side in 0..4 {
        let mut padding = [2; 4];
        assert!(output(window([3, 3], [1, 1], padding), 9, 9).is_some());
        padding[side] = 3;
        assert_eq!(output(window([3, 3], [1, 1], padding), 9, 9), None, "padding as large as the kernel");
    }
    assert_eq!(output(Window::square(1, 1, 0), 0, 9), None, "no input");
    assert_eq!(Window::square(1, 1, 0).output(Shape::new(9, 9, 1), 0), None, "no channels");
}

/// The rows under strips of output rows; `-` is padding or leapt over.
#[test]
fn rows_under_a_strip() {
    let rows = |window: Window, row, count, height: u16| {
        let picture =
            window.rows(row, count, height).map(|row| row.map_or("-".into(), |row| row.to_string()));
        picture.collect::<Vec<String>>().join(" ")
    };
    let same = window([3, 1], [1, 1], [1, 0, 1, 0]);
    assert_eq!(rows(same, 0, 1, 4), "- 0 1");
    assert_eq!(rows(same, 1, 1, 4), "0 1 2");
    assert_eq!(rows(same, 3, 1, 4), "2 3 -");
    assert_eq!(rows(same, 0, 4, 4), "- 0 1 2 3 -");
    let half = window([3, 1], [2, 1], [1, 0, 1, 0]);
    assert_eq!(rows(half, 1, 2, 8), "1 2 3 4 5");
    let leaping = window([1, 1], [3, 1], [0; 4]);
    assert_eq!(rows(leaping, 0, 3, 8), "0 - - 3 - - 6");
    let leaping = window([2, 1], [3, 1], [1, 0, 0, 0]);
    assert_eq!(rows(leaping, 0, 3, 8), "- 0 - 2 3 - 5 6");
    let last = window([7, 1], [7, 1], [6, 0, 6, 0]);
    assert_eq!(rows(last, 9362, 1, 65_535), "65528 65529 65530 65531 65532 65533 65534");
}

#[test]
fn convolutions() {
    const MULTIPLIERS: [i32; 5] = [1; 5];
    let requantize = |count| Requantize::new(&MULTIPLIERS[..count], 1, Clamp::none(0)).unwrap();
    let (input, window) = (Shape::new(4, 4, 3), Window::square(3, 1, 1));
    let full = |weights: usize, bias: &[i32], pixel: usize, multipliers: usize| {
        Conv2d::new(input, window, &vec![0; weights], bias, &vec![0; pixel], requantize(multipliers)).err()
    };
    assert_eq!(full(54, &[0, 0], 3, 2), None);
    assert_eq!(full(53, &[0, 0], 3, 2), length(54, 53));
    assert_eq!(full(54, &[0, 0], 2, 2), length(3, 2));
    assert_eq!(full(54, &[0, 0], 3, 1), length(2, 1));
    assert_eq!(full(0, &[], 3, 0), GEOMETRY);
    assert_eq!(full(54, &vec![0; 65_536], 3, 2), GEOMETRY);

    // as far as 27 products of 128 * 128 leave room
    let room = i32::MAX - 27 * 128 * 128;
    let accumulator = |channel| Some(LayerError::Accumulator { channel });
    assert_eq!(full(54, &[room, -room], 3, 2), None);
    assert_eq!(full(54, &[0, room + 1], 3, 2), accumulator(1));
    assert_eq!(full(54, &[-room - 1, 0], 3, 2), accumulator(0));
    assert_eq!(full(54, &[i32::MIN, 0], 3, 2), accumulator(0));

    let depthwise = |weights: usize, bias: &[i32]| {
        Conv2d::depthwise(input, window, &vec![0; weights], bias, &[0; 3], requantize(bias.len())).err()
    };
    let room = i32::MAX - 9 * 128 * 128;
    assert_eq!(depthwise(27, &[room, 0, -room]), None);
    assert_eq!(depthwise(27, &[0, 0, room + 1]), accumulator(2));
    assert_eq!(depthwise(26, &[0; 3]), length(27, 26));
    assert_eq!(depthwise(27, &[0; 2]), length(3, 2));

    let large = Window::square(7, 1, 0);
    assert_eq!(Conv2d::new(input, large, &[0; 147], &[0], &[0; 3], requantize(1)).err(), GEOMETRY);
    assert_eq!(Pool2d::new(input, large, Pooling::Max).err(), GEOMETRY);
}

#[test]
fn reductions() {
    let requantize =
        |multipliers| Finish::Requantize(Requantize::new(multipliers, 1, Clamp::none(0)).unwrap());
    let input = Shape::new(2, 3, 4);
    let dense = |input, weights: usize, bias: &[i32], finish| {
        Dense::new(input, &vec![0; weights], bias, finish).err()
    };
    assert_eq!(dense(input, 48, &[0, 0], requantize(&[1, 1])), None);
    assert_eq!(dense(input, 48, &[0, 0], requantize(&[1])), None, "one that serves all");
    assert_eq!(dense(input, 48, &[0, 0], requantize(&[1; 3])), length(2, 3));
    assert_eq!(dense(input, 48, &[0, 0], requantize(&[])), length(2, 0));
    assert_eq!(dense(input, 47, &[0, 0], requantize(&[1])), length(48, 47));
    assert_eq!(dense(input, 0, &[], requantize(&[1])), GEOMETRY);
    assert_eq!(dense(input, 0, &vec![0; 65_536], requantize(&[1])), GEOMETRY);
    assert_eq!(dense(Shape::new(2, 0, 4), 0, &[0], requantize(&[1])), GEOMETRY);
    let room = i32::MAX - 24 * 128 * 128;
    assert_eq!(dense(input, 48, &[room, -room], requantize(&[1])), None);
    assert_eq!(
        dense(input, 48, &[0, -room - 1], requantize(&[1])),
        Some(LayerError::Accumulator { channel: 1 })
    );

    let pool = |input, finish| GlobalAveragePool::new(input, 0, finish).err();
    assert_eq!(pool(input, requantize(&[1; 4])), None);
    assert_eq!(pool(input, requantize(&[1; 3])), length(4, 3));
    assert_eq!(pool(Shape::new(2, 3, 0), requantize(&[1])), GEOMETRY);
    // 256 * 32767 * 256 is just below 2^31, one row more is not
    assert_eq!(pool(Shape::new(32_767, 256, 1), requantize(&[1])), None);
    assert_eq!(
        pool(Shape::new(32_768, 256, 1), requantize(&[1])),
        Some(LayerError::Accumulator { channel: 0 })
    );

    let scores = |scales: &[f32]| GlobalAveragePool::new(input, 0, Finish::Scores(scales)).err();
    assert_eq!(scores(&[1.0]), None);
    // a sum of 2^31 steps has a finite score
    let largest = (f32::MAX / 2f32.powi(31)).next_down();
    assert_eq!(scores(&[1.0, 1e-38, largest, f32::from_bits(1)]), None);
    assert_eq!(scores(&[1.0, 1.0]), length(4, 2));
    for wrong in [1.6e29, 0.0, -0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(scores(&[1.0, 1.0, wrong, 1.0]), Some(LayerError::Requantization), "{wrong}");
    }
}
