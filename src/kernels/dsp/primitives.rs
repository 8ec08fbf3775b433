//! Single instructions of the DSP extension, on pairs of int16 in a word, with portable twins.

/// A naked function's body. Naked functions are assembled for the target's baseline core, whatever `-C target-cpu`
/// says: for v8-M, a core with the DSP extension has to be named.
#[cfg(all(skipstone_dsp, skipstone_v8m))]
macro_rules! assembly {
    ($($line:tt)*) => { core::arch::naked_asm!(".cpu cortex-m33", $($line)*) };
}
#[cfg(all(skipstone_dsp, not(skipstone_v8m)))]
macro_rules! assembly {
    ($($line:tt)*) => { core::arch::naked_asm!($($line)*) };
}
#[cfg(skipstone_dsp)]
pub(super) use assembly;

/// Declares a function of words that is one instruction where the core has the DSP extension.
///
/// `flags` are options of `asm!`: `(preserves_flags)` if the instruction writes no flag, else `()`. On Arm, that option
/// promises that the saturation flag Q and the greater-or-equal flags GE keep their values, besides N, Z, C and V (the
/// Rust Reference, "Inline assembly", rules).
macro_rules! instruction {
    (
        $(#[$doc:meta])*
        $name:ident($($argument:ident),+) = $mnemonic:literal $operands:literal, flags $flags:tt, $twin:expr
    ) => {
        $(#[$doc])*
        #[inline(always)]
        pub(super) fn $name($($argument: u32),+) -> u32 {
            #[cfg(skipstone_dsp)]
            {
                let result: u32;
                // SAFETY: the instruction touches its operands' registers and the flags that `flags` leaves to it,
                // neither memory nor stack, and its result depends on its operands alone. The core has it: the build
                // script sets `skipstone_dsp` for cores with the DSP extension only.
                #[allow(unsafe_code)]
                unsafe {
                    core::arch::asm!(
                        concat!($mnemonic, " {result}, ", $operands),
                        result = lateout(reg) result,
                        $($argument = in(reg) $argument,)+
                        options(pure, nomem, nostack),
                        options $flags,
                    );
                }
                result
            }
            #[cfg(not(skipstone_dsp))]
            {
                $twin
            }
        }
    };
}

instruction! {
    /// Bytes 0 and 2, sign-extended.
    sxtb16(a) = "sxtb16" "{a}", flags (preserves_flags), pack(a as i8 as i32, (a >> 16) as i8 as i32)
}
instruction! {
    /// Bytes 1 and 3, sign-extended.
    sxtb16_ror8(a) = "sxtb16" "{a}, ror #8", flags (preserves_flags),
        pack((a >> 8) as i8 as i32, (a >> 24) as i8 as i32)
}
instruction! {
    /// Sums of the halves; writes GE.
    sadd16(a, b) = "sadd16" "{a}, {b}", flags (), pack(low(a) + low(b), high(a) + high(b))
}
instruction! {
    /// Differences of the halves; writes GE.
    ssub16(a, b) = "ssub16" "{a}, {b}", flags (), pack(low(a) - low(b), high(a) - high(b))
}
instruction! {
    /// Both products of the halves, added to the sum; writes Q.
    smlad(a, b, sum) = "smlad" "{a}, {b}, {sum}", flags (),
        sum.wrapping_add((low(a) * low(b)).wrapping_add(high(a) * high(b)).cast_unsigned())
}

/// Four times each half: `AND` with a shifted operand.
#[inline(always)]
#[cfg(not(skipstone_dsp))] // the kernels that use it are assembly
pub(super) fn quadruple(a: u32) -> u32 {
    (a << 2) & !0x0003_0000
}

/// The lower half, sign-extended.
#[inline(always)]
pub(super) fn low(a: u32) -> i32 {
    i32::from(a as i16)
}

/// The upper half, sign-extended.
#[inline(always)]
pub(super) fn high(a: u32) -> i32 {
    a.cast_signed() >> 16
}

/// A word of two halves.
#[inline(always)]
#[cfg_attr(skipstone_dsp, allow(dead_code))] // only the twins use it
fn pack(low: i32, high: i32) -> u32 {
    (low.cast_unsigned() & 0xFFFF) | (high.cast_unsigned() << 16)
}
