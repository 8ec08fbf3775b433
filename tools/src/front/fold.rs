//! Operators whose inputs are all constants, evaluated: what exporters leave around the layers (sizes, axes, transposed weights).

use super::error::{ErrorKind, Refusal};
use super::graph::{Constant, Data, Operator, elements};

/// Elements that folding may still make, so that a small file cannot unfold to a large one.
#[derive(Debug)]
pub(crate) struct Budget(pub(crate) usize);

impl Budget {
    fn charge(&mut self, dims: &[usize]) -> Result<(), String> {
        let left = elements(dims).and_then(|count| self.0.checked_sub(count));
        self.0 = left.ok_or("its result is many times the file's size")?;
        Ok(())
    }
}

/// The node's first output. `Ok(None)` for operators that are not folded.
pub(crate) fn evaluate(
    operator: &Operator,
    inputs: &[Option<&Constant>],
    budget: &mut Budget,
    place: &str,
) -> Result<Option<Constant>, Refusal> {
    fold(operator, inputs, budget)
        .map_err(|reason| Refusal::new(ErrorKind::Damaged, place, format!("on constants: {reason}")))
}

fn fold(
    operator: &Operator,
    inputs: &[Option<&Constant>],
    budget: &mut Budget,
) -> Result<Option<Constant>, String> {
    let input = |index: usize| inputs.get(index).copied().flatten();
    if let Operator::ConstantOfShape { value } = operator {
        let dims = sizes(&integers(input(0).ok_or("no sizes")?)?)?;
        return remap(value, dims, budget, |_| 0).map(Some);
    }
    let Some(first) = input(0) else { return Ok(None) };
    let result = match operator {
        Operator::Cast { integer } => {
            budget.charge(&first.dims)?;
            cast(first, *integer)
        }
        Operator::Shape { start, end } => {
            Constant::integers(part(&first.dims, *start, *end).iter().map(|&d| d as i64).collect())
        }
        Operator::Reshape { allow_zero } => {
            let target = integers(input(1).ok_or("no sizes")?)?;
            let dims = reshaped(&first.dims, &target, *allow_zero)?;
            budget.charge(&dims)?;
            Constant { dims, data: first.data.clone() }
        }
        Operator::Flatten { .. } | Operator::Squeeze | Operator::Unsqueeze => {
            let axes = input(1).map(integers).transpose()?;
            let dims = regrouped(operator, &first.dims, axes.as_deref())?;
            budget.charge(&dims)?;
            Constant { dims, data: first.data.clone() }
        }
        Operator::Transpose { permutation } => {
            let permutation = checked_permutation(permutation.as_deref(), first.dims.len())?;
            let dims = permutation.iter().map(|&axis| first.dims[axis]).collect();
            let strides = strides(&first.dims);
            remap(first, dims, budget, |at| {
                at.iter().zip(&permutation).map(|(i, &axis)| i * strides[axis]).sum()
            })?
        }
        Operator::Expand => {
            let target = sizes(&integers(input(1).ok_or("no sizes")?)?)?;
            let dims = broadcast(&first.dims, &target)?;
            spread(first, &dims, budget)?
        }
        Operator::Gather { axis } => gather(first, input(1).ok_or("no indices")?, *axis, budget)?,
        Operator::Concat { axis } => concat(inputs, *axis, budget)?,
        Operator::Slice => {
            let vector = |index: usize| input(index).map(integers).transpose();
            let starts = vector(1)?.ok_or("no starts")?;
            let ends = vector(2)?.ok_or("no ends")?;
            let ranges = ranges(&first.dims, &starts, &ends, vector(3)?, vector(4)?)?;
            let strides = strides(&first.dims);
            remap(first, ranges.iter().map(|range| range.count).collect(), budget, |at| {
                let index = |(i, range): (&usize, &Range)| range.start + *i as i64 * range.step;
                at.iter().zip(&ranges).map(index).zip(&strides).map(|(i, s)| i as usize * s).sum()
            })?
        }
        Operator::Add | Operator::Subtract | Operator::Multiply | Operator::Divide => {
            let second = input(1).ok_or("one operand")?;
            let dims = broadcast(&first.dims, &second.dims)?;
            arithmetic(operator, &spread(first, &dims, budget)?, &spread(second, &dims, budget)?)?
        }
        _ => return Ok(None),
    };
    Ok(Some(result))
}

/// The elements of a vector or scalar of integers.
pub(crate) fn integers(constant: &Constant) -> Result<Vec<i64>, String> {
    match &constant.data {
        Data::Integer(values) => Ok(values.clone()),
        Data::Float(_) => Err("integers expected, floats found".into()),
    }
}

fn sizes(values: &[i64]) -> Result<Vec<usize>, String> {
    values.iter().map(|&v| usize::try_from(v).map_err(|_| format!("a size of {v}"))).collect()
}

fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    strides
}

/// A tensor of sizes `dims` whose element at each index is `source`'s at `from(index)`.
fn remap(
    source: &Constant,
    dims: Vec<usize>,
    budget: &mut Budget,
    from: impl Fn(&[usize]) -> usize,
) -> Result<Constant, String> {
    budget.charge(&dims)?;
    let count = elements(&dims).unwrap_or(0);
    let mut at = vec![0; dims.len()];
    let mut order = Vec::with_capacity(count);
    for _ in 0..count {
        order.push(from(&at));
        for axis in (0..dims.len()).rev() {
            at[axis] += 1;
            if at[axis] < dims[axis] {
                break;
            }
            at[axis] = 0;
        }
    }
    let missing = "an index outside of its tensor";
    let data = match &source.data {
        Data::Float(values) => {
            Data::Float(order.iter().map(|&i| values.get(i).copied()).collect::<Option<_>>().ok_or(missing)?)
        }
        Data::Integer(values) => Data::Integer(
            order.iter().map(|&i| values.get(i).copied()).collect::<Option<_>>().ok_or(missing)?,
        ),
    };
    Constant::new(dims, data).ok_or_else(|| "too many axes".into())
}

fn cast(source: &Constant, integer: bool) -> Constant {
    let data = match (&source.data, integer) {
        (Data::Float(values), true) => Data::Integer(values.iter().map(|&v| v as i64).collect()),
        (Data::Integer(values), false) => Data::Float(values.iter().map(|&v| v as f32).collect()),
        (data, _) => data.clone(),
    };
    Constant { dims: source.dims.clone(), data }
}

/// `values[start..end]`, negative positions counted from the end.
pub(crate) fn part(values: &[usize], start: i64, end: i64) -> &[usize] {
    let length = values.len() as i64;
    let place = |at: i64| if at < 0 { at.saturating_add(length) } else { at }.clamp(0, length) as usize;
    values.get(place(start)..place(end)).unwrap_or_default()
}

/// An axis that may count from the end.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, String> {
    let place = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    let place = usize::try_from(place).ok().filter(|&place| place < rank);
    place.ok_or_else(|| format!("axis {axis} of a tensor with {rank} axes"))
}

/// A permutation of all axes; the reversing one if none is given.
pub(crate) fn checked_permutation(permutation: Option<&[usize]>, rank: usize) -> Result<Vec<usize>, String> {
    let permutation = permutation.map_or_else(|| (0..rank).rev().collect(), <[usize]>::to_vec);
    let mut sorted = permutation.clone();
    sorted.sort_unstable();
    if sorted.iter().copied().eq(0..rank) {
        Ok(permutation)
    } else {
        Err(format!("{permutation:?} is not an order of {rank} axes"))
    }
}

/// The sizes that Reshape asks for: -1 is what is left, 0 the input's unless `allow_zero`.
pub(crate) fn reshaped(dims: &[usize], target: &[i64], allow_zero: bool) -> Result<Vec<usize>, String> {
    let whole = elements(dims).ok_or("its input is too large")?;
    let mut result = Vec::new();
    let mut open = None;
    for (index, &size) in target.iter().enumerate() {
        result.push(match size {
            -1 if open.replace(index).is_none() => 1,
            0 if !allow_zero => *dims.get(index).ok_or("a size of 0 past the input's last axis")?,
            _ => usize::try_from(size).map_err(|_| format!("sizes {target:?}"))?,
        });
    }
    let known = elements(&result).ok_or("its result is too large")?;
    if let Some(index) = open {
        result[index] = whole.checked_div(known).unwrap_or(0);
    }
    if elements(&result) == Some(whole) {
        Ok(result)
    } else {
        Err(format!("sizes {target:?} for a tensor of sizes {dims:?}"))
    }
}

/// The sizes after Flatten, Squeeze or Unsqueeze.
pub(crate) fn regrouped(
    operator: &Operator,
    dims: &[usize],
    axes: Option<&[i64]>,
) -> Result<Vec<usize>, String> {
    let places =
        |axes: &[i64], rank: usize| axes.iter().map(|&a| axis(a, rank)).collect::<Result<Vec<_>, _>>();
    match operator {
        Operator::Flatten { axis: 0 } => Ok(vec![1, elements(dims).ok_or("its input is too large")?]),
        Operator::Flatten { axis: at } => {
            let at = if *at == dims.len() as i64 { dims.len() } else { axis(*at, dims.len())? };
            let product = |dims: &[usize]| elements(dims).ok_or("its input is too large");
            Ok(vec![product(&dims[..at])?, product(&dims[at..])?])
        }
        Operator::Squeeze => {
            let gone = match axes {
                Some(axes) => places(axes, dims.len())?,
                None => (0..dims.len()).filter(|&axis| dims[axis] == 1).collect(),
            };
            if let Some(&long) = gone.iter().find(|&&axis| dims[axis] != 1) {
                return Err(format!("axis {long} of size {} is not 1", dims[long]));
            }
            let kept = dims.iter().enumerate().filter(|(axis, _)| !gone.contains(axis));
            Ok(kept.map(|(_, &size)| size).collect())
        }
        Operator::Unsqueeze => {
            let axes = axes.ok_or("no axes")?;
            let rank = dims.len() + axes.len();
            let new = places(axes, rank)?;
            let mut old = dims.iter();
            let result: Vec<usize> = (0..rank)
                .filter_map(|axis| if new.contains(&axis) { Some(1) } else { old.next().copied() })
                .collect();
            if result.len() == rank { Ok(result) } else { Err("an axis is given twice".into()) }
        }
        _ => Err("is not a change of sizes".into()),
    }
}

/// What Slice takes of one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: i64,
    pub(crate) step: i64,
    pub(crate) count: usize,
}

/// What Slice takes of every axis.
pub(crate) fn ranges(
    dims: &[usize],
    starts: &[i64],
    ends: &[i64],
    axes: Option<Vec<i64>>,
    steps: Option<Vec<i64>>,
) -> Result<Vec<Range>, String> {
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err("starts, ends, axes and steps of different lengths".into());
    }
    let mut ranges: Vec<Range> = dims.iter().map(|&count| Range { start: 0, step: 1, count }).collect();
    for (index, &at) in axes.iter().enumerate() {
        let at = axis(at, dims.len())?;
        let size = dims[at] as i64;
        let step = steps[index];
        let place = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
        let (start, end) = (place(starts[index]), place(ends[index]));
        let distance = match step {
            0 => return Err("a step of 0".into()),
            1.. => end.clamp(0, size) - start.clamp(0, size),
            _ => start.clamp(-1, size - 1) - end.clamp(-1, size - 1),
        };
        let start = if step > 0 { start.clamp(0, size) } else { start.clamp(-1, size - 1) };
        let count = distance.max(0).unsigned_abs().div_ceil(step.unsigned_abs()) as usize;
        ranges[at] = Range { start, step, count };
    }
    Ok(ranges)
}

fn broadcast(left: &[usize], right: &[usize]) -> Result<Vec<usize>, String> {
    let rank = left.len().max(right.len());
    let size =
        |dims: &[usize], axis: usize| (axis + dims.len()).checked_sub(rank).map_or(1, |index| dims[index]);
    (0..rank)
        .map(|axis| match (size(left, axis), size(right, axis)) {
            (a, b) if a == b || b == 1 => Ok(a),
            (1, b) => Ok(b),
            _ => Err(format!("sizes {left:?} and {right:?} do not go together")),
        })
        .collect()
}

fn spread(source: &Constant, dims: &[usize], budget: &mut Budget) -> Result<Constant, String> {
    let skip = dims.len() - source.dims.len();
    let strides = strides(&source.dims);
    remap(source, dims.to_vec(), budget, |at| {
        let steps = at[skip..].iter().zip(&source.dims).zip(&strides);
        steps.map(|((&i, &size), stride)| if size == 1 { 0 } else { i * stride }).sum()
    })
}

fn gather(source: &Constant, indices: &Constant, at: i64, budget: &mut Budget) -> Result<Constant, String> {
    let at = axis(at, source.dims.len())?;
    let size = source.dims[at];
    let picks: Vec<usize> = integers(indices)?.iter().map(|&i| axis(i, size)).collect::<Result<_, _>>()?;
    let mut dims = source.dims[..at].to_vec();
    dims.extend(&indices.dims);
    dims.extend(&source.dims[at + 1..]);
    let (inner, outer) = (strides(&source.dims), strides(&indices.dims));
    let rank = indices.dims.len();
    remap(source, dims, budget, |index| {
        let pick: usize = index[at..at + rank].iter().zip(&outer).map(|(i, s)| i * s).sum();
        let before: usize = index[..at].iter().zip(&inner).map(|(i, s)| i * s).sum();
        let after: usize = index[at + rank..].iter().zip(&inner[at + 1..]).map(|(i, s)| i * s).sum();
        before + picks[pick] * inner[at] + after
    })
}

fn concat(inputs: &[Option<&Constant>], at: i64, budget: &mut Budget) -> Result<Constant, String> {
    let parts: Vec<&Constant> = inputs.iter().copied().flatten().collect();
    let first = parts.first().ok_or("nothing to join")?;
    let at = axis(at, first.dims.len())?;
    let mut dims = first.dims.clone();
    dims[at] = 0;
    for part in &parts {
        let fits = part.dims.len() == dims.len()
            && (0..dims.len()).all(|axis| axis == at || part.dims[axis] == dims[axis]);
        if !fits {
            return Err("tensors of different sizes are joined".into());
        }
        dims[at] += part.dims[at];
    }
    budget.charge(&dims)?;
    let outer: usize = dims[..at].iter().product();
    let inner: usize = dims[at + 1..].iter().product();
    let mut floats = Vec::new();
    let mut integers = Vec::new();
    for block in 0..outer {
        for part in &parts {
            let length = part.dims[at] * inner;
            let range = block * length..(block + 1) * length;
            match &part.data {
                Data::Float(values) => floats.extend_from_slice(&values[range]),
                Data::Integer(values) => integers.extend_from_slice(&values[range]),
            }
        }
    }
    let data = if floats.is_empty() { Data::Integer(integers) } else { Data::Float(floats) };
    Constant::new(dims, data).ok_or_else(|| "integers and floats are joined".into())
}

/// Both operands have the same sizes.
fn arithmetic(operator: &Operator, left: &Constant, right: &Constant) -> Result<Constant, String> {
    let data = match (&left.data, &right.data) {
        (Data::Float(left), Data::Float(right)) => {
            let apply: fn(f32, f32) -> f32 = match operator {
                Operator::Add => |a, b| a + b,
                Operator::Subtract => |a, b| a - b,
                Operator::Multiply => |a, b| a * b,
                _ => |a, b| a / b,
            };
            Data::Float(left.iter().zip(right).map(|(&a, &b)| apply(a, b)).collect())
        }
        (Data::Integer(left), Data::Integer(right)) => {
            let apply: fn(i64, i64) -> Option<i64> = match operator {
                Operator::Add => i64::checked_add,
                Operator::Subtract => i64::checked_sub,
                Operator::Multiply => i64::checked_mul,
                _ => i64::checked_div,
            };
            let values: Option<_> = left.iter().zip(right).map(|(&a, &b)| apply(a, b)).collect();
            Data::Integer(values.ok_or("an integer overflows or is divided by 0")?)
        }
        _ => return Err("an integer and a float are combined".into()),
    };
    Ok(Constant { dims: left.dims.clone(), data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ints(values: &[i64]) -> Constant {
        Constant::integers(values.to_vec())
    }

    fn matrix(rows: usize, columns: usize) -> Constant {
        let data = Data::Integer((0..(rows * columns) as i64).collect());
        Constant::new(vec![rows, columns], data).unwrap()
    }

    fn run(operator: &Operator, inputs: &[&Constant]) -> Result<Constant, String> {
        let inputs: Vec<_> = inputs.iter().map(|&input| Some(input)).collect();
        Ok(fold(operator, &inputs, &mut Budget(1000))?.unwrap())
    }

    fn values(constant: &Constant) -> Vec<i64> {
        integers(constant).unwrap()
    }

    /// PyTorch's older exporter writes F.pad's counts like this: pairs, last axis first.
    #[test]
    fn the_padding_chain_of_torchscript_folds() {
        let zeros = Operator::ConstantOfShape { value: ints(&[0]) };
        let zeros = run(&zeros, &[&ints(&[2])]).unwrap();
        let joined = run(&Operator::Concat { axis: 0 }, &[&ints(&[0, 0, 0, 0, 2, 2]), &zeros]).unwrap();
        let reshape = Operator::Reshape { allow_zero: false };
        let pairs = run(&reshape, &[&joined, &ints(&[-1, 2])]).unwrap();
        let ends = ints(&[-i64::MAX]);
        let reversed = [&pairs, &ints(&[-1]), &ends, &ints(&[0]), &ints(&[-1])];
        let reversed = run(&Operator::Slice, &reversed).unwrap();
        let transposed = run(&Operator::Transpose { permutation: Some(vec![1, 0]) }, &[&reversed]).unwrap();
        let counts = run(&reshape, &[&transposed, &ints(&[-1])]).unwrap();
        assert_eq!(values(&counts), [0, 2, 0, 0, 0, 2, 0, 0]);
    }

    #[test]
    fn sizes_are_picked_and_joined() {
        let shape = Operator::Shape { start: 0, end: i64::MAX };
        let shape = run(&shape, &[&matrix(2, 3)]).unwrap();
        assert_eq!(values(&shape), [2, 3]);
        let scalar = Constant::new(vec![], Data::Integer(vec![-1])).unwrap();
        let picked = run(&Operator::Gather { axis: 0 }, &[&shape, &scalar]).unwrap();
        assert_eq!((picked.dims.len(), values(&picked)), (0, vec![3]));
        let rows = run(&Operator::Gather { axis: 1 }, &[&matrix(2, 3), &ints(&[2, 0])]).unwrap();
        assert_eq!(values(&rows), [2, 0, 5, 3]);
        let raised = run(&Operator::Unsqueeze, &[&picked, &ints(&[0])]).unwrap();
        assert_eq!(raised.dims, [1]);
        let joined = run(&Operator::Concat { axis: 1 }, &[&matrix(2, 1), &matrix(2, 2)]).unwrap();
        assert_eq!(values(&joined), [0, 0, 1, 1, 2, 3]);
    }

    #[test]
    fn slices_follow_the_rules_for_ends_out_of_range() {
        let at = |start, end, step| ranges(&[5], &[start], &[end], None, Some(vec![step])).unwrap()[0].count;
        assert_eq!(at(0, i64::MAX, 2), 3);
        assert_eq!(at(-2, i64::MAX, 1), 2);
        assert_eq!(at(4, i64::MIN, -1), 5);
        assert_eq!(at(i64::MAX, i64::MIN, -2), 3);
        assert_eq!(at(3, 2, 1), 0);
        assert_eq!(at(i64::MIN, i64::MIN, 1), 0);
        assert_eq!(at(0, 5, i64::MIN), 0);
        assert!(ranges(&[5], &[0], &[5], None, Some(vec![0])).is_err());
        assert!(ranges(&[5], &[0], &[5], Some(vec![1]), None).is_err());
        assert!(ranges(&[5], &[0], &[], None, None).is_err());
    }

    #[test]
    fn operands_spread_over_each_other() {
        let column = run(&Operator::Unsqueeze, &[&ints(&[10, 20]), &ints(&[1])]).unwrap();
        let sum = run(&Operator::Add, &[&column, &ints(&[1, 2, 3])]).unwrap();
        assert_eq!((sum.dims.clone(), values(&sum)), (vec![2, 3], vec![11, 12, 13, 21, 22, 23]));
        assert!(run(&Operator::Add, &[&ints(&[1, 2]), &ints(&[1, 2, 3])]).is_err());
        assert!(run(&Operator::Divide, &[&ints(&[1]), &ints(&[0])]).is_err());
        assert!(run(&Operator::Add, &[&ints(&[i64::MAX]), &ints(&[1])]).is_err());
        let expanded = run(&Operator::Expand, &[&ints(&[7]), &ints(&[2, 2])]).unwrap();
        assert_eq!(values(&expanded), [7; 4]);
    }

    #[test]
    fn reshaping_knows_what_is_open() {
        assert_eq!(reshaped(&[2, 3, 4], &[0, -1], false), Ok(vec![2, 12]));
        assert!(reshaped(&[2, 3, 4], &[0, -1], true).is_err());
        assert!(reshaped(&[2, 3, 4], &[-1, -1], false).is_err());
        assert!(reshaped(&[2, 3, 4], &[5, -1], false).is_err());
        assert!(reshaped(&[2], &[0, 0], false).is_err());
        assert!(reshaped(&[2], &[i64::MAX, i64::MAX], false).is_err());
        let flatten = |axis| regrouped(&Operator::Flatten { axis }, &[2, 3, 4], None).unwrap();
        assert_eq!([flatten(0), flatten(1), flatten(-1), flatten(3)], [[1, 24], [2, 12], [6, 4], [24, 1]]);
        assert_eq!(regrouped(&Operator::Squeeze, &[1, 3, 1], None), Ok(vec![3]));
        assert_eq!(regrouped(&Operator::Squeeze, &[1, 3, 1], Some(&[-1])), Ok(vec![1, 3]));
        assert!(regrouped(&Operator::Squeeze, &[1, 3, 1], Some(&[1])).is_err());
        assert_eq!(regrouped(&Operator::Unsqueeze, &[3], Some(&[0, 2])), Ok(vec![1, 3, 1]));
        assert!(regrouped(&Operator::Unsqueeze, &[3], Some(&[0, 0])).is_err());
    }

    #[test]
    fn a_small_file_cannot_unfold_to_a_large_one() {
        let zeros = Operator::ConstantOfShape { value: ints(&[0]) };
        assert!(run(&zeros, &[&ints(&[1001])]).unwrap_err().contains("file's size"));
        assert!(run(&zeros, &[&ints(&[i64::MAX, i64::MAX])]).is_err());
        assert!(run(&zeros, &[&ints(&[-1])]).is_err());
        assert!(run(&Operator::Expand, &[&ints(&[7]), &ints(&[1 << 40])]).is_err());
        assert!(Constant::new(vec![0, usize::MAX, usize::MAX], Data::Float(vec![])).is_none());
    }
}
