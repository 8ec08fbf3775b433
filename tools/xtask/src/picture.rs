//! Shows a network's input image in the terminal.

use std::env;
use std::io::{self, IsTerminal};

/// Characters from dark to bright.
const SHADES: &[u8] = b" .:-=+*#%@";

/// Draws an image with `width` pixels per row and `channels` bytes per pixel (1: grey, 3: RGB): in colours on a
/// terminal, otherwise in characters.
pub(crate) fn draw(pixels: &[u8], width: usize, channels: usize) -> String {
    let coloured = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none();
    if coloured { blocks(pixels, width, channels) } else { letters(pixels, width, channels) }
}

/// Draws two rows per line: the upper and the lower half of each block character have a colour of their own.
fn blocks(pixels: &[u8], width: usize, channels: usize) -> String {
    let mut text = String::new();
    let rows: Vec<_> = pixels.chunks_exact(width * channels).collect();
    for pair in rows.chunks(2) {
        for (upper, lower) in pair[0].chunks(channels).zip(pair[pair.len() - 1].chunks(channels)) {
            let ([r, g, b], [red, green, blue]) = (rgb(upper), rgb(lower));
            text += &format!("\x1b[38;2;{r};{g};{b};48;2;{red};{green};{blue}m\u{2580}");
        }
        text += "\x1b[0m\n";
    }
    text
}

/// Draws two characters per pixel, which makes it about square.
fn letters(pixels: &[u8], width: usize, channels: usize) -> String {
    let mut text = String::new();
    for row in pixels.chunks_exact(width * channels) {
        for pixel in row.chunks(channels) {
            let [r, g, b] = rgb(pixel).map(usize::from);
            // Rec. 601 luma in thousandths
            let shade = (299 * r + 587 * g + 114 * b) * SHADES.len() / 256_000;
            text.extend([char::from(SHADES[shade]); 2]);
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

fn rgb(pixel: &[u8]) -> [u8; 3] {
    match *pixel {
        [r, g, b, ..] => [r, g, b],
        [grey, ..] => [grey; 3],
        [] => [0; 3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_and_colour_images_are_drawn_in_characters() {
        assert_eq!(letters(&[0, 255, 255, 0], 2, 1), "  @@\n@@\n");
        assert_eq!(letters(&[255, 0, 0, 255, 255, 255], 2, 3), "::@@\n");
    }
}
