//! The vector table's second half: the device's interrupts, of which this firmware enables none.

/// One entry, because the linker script wants some; cortex-m-rt's own table has 240, a kilobyte.
///
/// A firmware that enables interrupts takes the table of its device's crate instead (nrf52840-pac).
// SAFETY: the section is where the linker script looks for it, and the name is what it looks for.
#[unsafe(link_section = ".vector_table.interrupts")]
#[unsafe(no_mangle)]
pub static __INTERRUPTS: [usize; 1] = [0];
