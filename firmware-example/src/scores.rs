//! Formats scores: as percentages for people, as bits for comparison with the host.

use defmt::Format;

/// A fraction from 0 to 1, printed as a percentage with one decimal.
pub struct Percent(pub f32);

impl Format for Percent {
    fn format(&self, f: defmt::Formatter<'_>) {
        let tenths = (self.0 * 1000.0 + 0.5) as u32;
        defmt::write!(f, "{=u32}.{=u32} %", tenths / 10, tenths % 10);
    }
}

/// Scores, printed as the hexadecimal bits of each `f32`.
pub struct Bits<'a>(pub &'a [f32]);

impl Format for Bits<'_> {
    fn format(&self, f: defmt::Formatter<'_>) {
        for (index, score) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { " " };
            defmt::write!(f, "{=str}{=u32:08x}", separator, score.to_bits());
        }
    }
}
