//! The list of convolution algorithms.

/// Calls a macro with all algorithms, in the order of their numbers in the blob. Each name is also the name of its
/// implementation: a type in `kernels` that implements `kernels::algorithms::Convolution`. An algorithm without one
/// does not compile.
macro_rules! for_each_algorithm {
    ($then:ident) => {
        $then! {
            /// The obvious loops, for every convolution; weights OHWI, of a depthwise convolution HWC.
            Reference,
            /// Four pixels and two channels at a time, for every convolution that is not depthwise; weights packed in
            /// words of two channels by two taps.
            Direct,
            /// Four channels at a time, for depthwise convolutions; weights HWC.
            Depthwise,
            /// Winograd's F(2x2, 3x3), or its polyphase form for stride 2; weights transformed beforehand: 16 or 25
            /// for 9, of 16 bits.
            Winograd,
            /// The same; weights OHWI, transformed at run time in scratch memory.
            WinogradAtRunTime,
            /// Winograd's F(4x4, 3x3), for stride 1; weights transformed beforehand: 36 for 9, of 16 bits.
            Winograd4,
            /// The same; weights OHWI, transformed at run time in scratch memory.
            Winograd4AtRunTime,
        }
    };
}
pub(crate) use for_each_algorithm;

macro_rules! declare {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How a convolution is computed. All algorithms give the same bits; they differ in speed, in flash and RAM,
        /// and in how their weights are packed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        pub enum Algorithm {
            $($(#[$doc])* $name,)*
        }

        impl Algorithm {
            /// All algorithms, by their number in the blob.
            pub const ALL: &[Algorithm] = &[$(Algorithm::$name),*];
        }
    };
}
for_each_algorithm!(declare);

impl Algorithm {
    /// The algorithm with this number in the blob.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its number in the blob.
    pub const fn number(self) -> u8 {
        self as u8
    }
}
