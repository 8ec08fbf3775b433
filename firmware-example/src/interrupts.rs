//! The second half of the vector table: the device's interrupts. This firmware enables none.

/// One entry, because the linker script requires the section; cortex-m-rt's own table has 240 entries, 1 KB.
///
/// Firmware that enables interrupts uses the table of its device crate instead, such as nrf52840-pac.
// SAFETY: `link.x` expects this symbol in this section. No interrupt is enabled, so no entry is ever called.
#[unsafe(link_section = ".vector_table.interrupts")]
#[unsafe(no_mangle)]
pub static __INTERRUPTS: [usize; 1] = [0];
