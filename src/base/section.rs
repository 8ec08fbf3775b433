//! Sections of the weights.

/// Alignment of the blob in memory and of each section in the weights, in bytes.
pub const SECTION_ALIGN: usize = 4;

/// `count` elements at `offset` of the weights; `None` if they are outside or not aligned.
pub(crate) fn section<T: bytemuck::AnyBitPattern>(weights: &[u8], offset: u32, count: usize) -> Option<&[T]> {
    let start = usize::try_from(offset).ok().filter(|start| start.is_multiple_of(SECTION_ALIGN))?;
    let end = start.checked_add(count.checked_mul(size_of::<T>())?)?;
    bytemuck::try_cast_slice(weights.get(start..end)?).ok()
}
