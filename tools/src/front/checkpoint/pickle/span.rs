//! Text of a pickle, by its place in the file.

/// A part of the pickle's bytes that is UTF-8.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

/// Spans were checked when they were made; a wrong one would be empty text.
pub(super) fn text(bytes: &[u8], span: Span) -> &str {
    let bytes = bytes.get(span.start as usize..span.end as usize).unwrap_or_default();
    std::str::from_utf8(bytes).unwrap_or_default()
}
