//! Placing slots in the fewest bytes: first fit, in several orders; the best result is kept.
//!
//! The largest sum of slots alive at once is a lower bound, which tells when to stop looking.

use std::cmp::Reverse;

use skipstone::host::plan::ROW_ALIGN;
use skipstone::host::schedule::Tensor;

/// Random orders that are tried if the plain ones miss the lower bound.
const TRIES: usize = 3000;

/// Slots times attempts that are made at most, so that deep networks are planned in seconds.
const WORK: usize = 3_000_000;

/// Steps of the schedule whose slots are looked up together.
const BUCKET: usize = 64;

/// Memory that rows have one after the other, joined by additions in place.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) bytes: usize,
    /// First and last step in which it is in use; `usize::MAX`: to the end of the run.
    pub(super) birth: usize,
    pub(super) death: usize,
    /// Where the slot must be in the frame, for its rows.
    pub(super) in_frame: Option<usize>,
}

/// The largest sum of slots alive at once.
pub(super) fn lower_bound(slots: &[Slot], steps: usize) -> usize {
    let mut change = vec![0isize; steps + 2];
    for slot in slots {
        change[slot.birth] += slot.bytes as isize;
        change[slot.death.min(steps) + 1] -= slot.bytes as isize;
    }
    let mut alive = 0;
    let peak = change.into_iter().map(|change| {
        alive += change;
        alive
    });
    peak.max().unwrap_or(0) as usize
}

/// Places the slots; returns the end of the highest and the address of each.
pub(super) fn place(slots: &[Slot], steps: usize, input: Tensor, frame: bool) -> (usize, Vec<usize>) {
    let bound = lower_bound(slots, steps);
    let attempts = (WORK / slots.len().max(1)).max(4);
    let mut best = (usize::MAX, Vec::new());
    let mut made = 0;
    let mut attempt = |order: &[usize], base: usize| {
        made += 1;
        let (top, addresses) = first_fit(slots, steps, order, base);
        if top < best.0 {
            best = (top, addresses);
        }
        (top, best.0, made < attempts)
    };

    let by_birth: Vec<usize> = (0..slots.len()).collect();
    let mut by_size = by_birth.clone();
    by_size.sort_by_key(|&index| Reverse(slots[index].bytes));
    let mut by_area = by_birth.clone();
    let life = |slot: &Slot| slot.death.min(steps) - slot.birth + 1;
    by_area.sort_by_key(|&index| Reverse(slots[index].bytes * life(&slots[index])));
    // the frame at the end of the arena, whose space is freed from its beginning on; or, fed by rows, a few input
    // rows at the bottom, where they would scatter larger ones
    let row = (input.row_bytes as usize).next_multiple_of(ROW_ALIGN);
    let frame_bytes = input.row_bytes as usize * usize::from(input.rows);
    let bases: Vec<usize> = match frame {
        true => {
            (0..64).map(|step| (bound.saturating_sub(frame_bytes) + 32 * step).next_multiple_of(16)).collect()
        }
        false => (0..=8).map(|rows| rows * row).collect(),
    };
    // many bases for few slots, few bases for many
    let stride = (3 * bases.len()).div_ceil(attempts);
    let (mut least, mut best_base, mut time) = (usize::MAX, 0, true);
    for order in [&by_birth, &by_size, &by_area] {
        for base in bases.iter().step_by(stride.max(1)) {
            let (now, _, left) = attempt(order, *base);
            time = left;
            if now < least {
                (least, best_base) = (now, *base);
            }
        }
    }
    let mut random = Random(1);
    let mut order = by_birth;
    let mut kept = usize::MAX;
    for _ in 0..TRIES.min(TRIES * 500 / slots.len().max(1)) {
        if least <= bound || !time {
            break;
        }
        // a few slots are placed out of turn; kept unless that made it worse
        let before = order.clone();
        for _ in 0..1 + random.below(8) {
            let slot = order.remove(random.below(order.len()));
            order.insert(random.below(order.len() + 1), slot);
        }
        let base = if random.below(2) == 0 { best_base } else { bases[random.below(bases.len())] };
        let (now, overall, left) = attempt(&order, base);
        time = left;
        if now < least {
            best_base = base;
        }
        if now > kept {
            order = before;
        }
        kept = kept.min(now);
        least = overall;
    }
    best
}

/// Gives each slot, in `order`, the lowest address where it disturbs none that has one. The frame begins at `base`;
/// without a frame, slots larger than the smallest are not placed below `base`. Returns the end of the highest and the
/// addresses by slot.
fn first_fit(slots: &[Slot], steps: usize, order: &[usize], base: usize) -> (usize, Vec<usize>) {
    let mut placed =
        Placed { buckets: vec![Vec::new(); steps / BUCKET + 1], addresses: vec![0; slots.len()] };
    let mut top = 0;
    let mut framed = false;
    for (index, slot) in slots.iter().enumerate() {
        if let Some(offset) = slot.in_frame {
            top = top.max(placed.put(slots, index, base + offset));
            framed = true;
        }
    }
    let smallest = slots.iter().map(|slot| slot.bytes).min().unwrap_or(0);
    let mut near = Vec::new();
    for &index in order {
        let slot = &slots[index];
        if slot.in_frame.is_some() {
            continue;
        }
        let mut address: usize = if !framed && slot.bytes > smallest { base } else { 0 };
        placed.alive_with(slots, slot, &mut near);
        for &(start, end) in &near {
            if end <= address {
                continue;
            }
            if address + slot.bytes <= start {
                break;
            }
            address = end.next_multiple_of(ROW_ALIGN);
        }
        top = top.max(placed.put(slots, index, address));
    }
    (top.next_multiple_of(ROW_ALIGN), placed.addresses)
}

/// Slots that have an address, by the time of their lives.
struct Placed {
    buckets: Vec<Vec<usize>>,
    addresses: Vec<usize>,
}

impl Placed {
    /// The buckets that a slot's life touches.
    fn buckets(&self, slot: &Slot) -> std::ops::RangeInclusive<usize> {
        slot.birth / BUCKET..=(slot.death / BUCKET).min(self.buckets.len() - 1)
    }

    /// Places a slot; returns its end.
    fn put(&mut self, slots: &[Slot], index: usize, address: usize) -> usize {
        self.addresses[index] = address;
        for bucket in self.buckets(&slots[index]) {
            self.buckets[bucket].push(index);
        }
        address + slots[index].bytes
    }

    /// Starts and ends of the slots that are alive while `slot` is, the lowest first.
    fn alive_with(&self, slots: &[Slot], slot: &Slot, near: &mut Vec<(usize, usize)>) {
        near.clear();
        for bucket in self.buckets(slot) {
            for &other in &self.buckets[bucket] {
                let (start, other) = (self.addresses[other], &slots[other]);
                if other.birth <= slot.death && slot.birth <= other.death {
                    near.push((start, start + other.bytes));
                }
            }
        }
        near.sort_unstable();
    }
}

/// A small deterministic generator (Knuth's MMIX constants): plans must not differ from run to run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % end.max(1)
    }
}
