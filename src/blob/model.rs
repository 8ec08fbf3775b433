//! The blob, checked once: container, manifest, every layer's shapes and parameters.

use crate::base::error::ParseError;
use crate::base::section::{SECTION_ALIGN, section};
use crate::base::shape::Shape;
use crate::blob::format::{self, HEADER_BYTES, Header, MAX_OUTPUTS, MAX_TENSORS, VERSION, WEIGHTS_ALIGN};
use crate::blob::reader::{Entry, Records};
use crate::kernels::Kernels;
use crate::net::plan::Plan;
use crate::ops::Softmax;

#[cfg(target_endian = "big")]
compile_error!("skipstone reads little-endian weights in place: big-endian targets are not supported");

/// CRC-32 (ISO-HDLC, as in zip and Ethernet) of a blob, its checksum field left out.
///
/// ```
/// // the check value of the CRC catalogue, for "123456789"; these bytes are shorter than a header
/// assert_eq!(skipstone::host::checksum(b"123456789"), 0xCBF4_3926);
/// ```
pub fn checksum(blob: &[u8]) -> u32 {
    let before = blob.get(..Header::CRC_OFFSET).unwrap_or(blob);
    let after = blob.get(Header::CRC_OFFSET + 4..).unwrap_or_default();
    !before.iter().chain(after).fold(!0, |crc, byte| {
        let crc = crc ^ u32::from(*byte);
        crc_nibble(crc_nibble(crc))
    })
}

/// Checks a blob's checksum.
#[inline(never)]
fn check_sum(blob: &[u8]) -> Result<(), ParseError> {
    let stored = Header::read(blob).map_or(0, |header| header.crc);
    let computed = checksum(blob);
    if computed == stored { Ok(()) } else { Err(ParseError::Checksum { stored, computed }) }
}

/// Takes four bits into the CRC: a table of 16 costs 64 bytes of flash, one for whole bytes a kilobyte.
fn crc_nibble(crc: u32) -> u32 {
    const POLYNOMIAL: u32 = 0xEDB8_8320; // reflected
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut index = 0;
        while index < 16 {
            let (mut value, mut bit) = (index as u32, 0);
            while bit < 4 {
                value = (value >> 1) ^ (POLYNOMIAL * (value & 1));
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    (crc >> 4) ^ TABLE.get((crc & 15) as usize).copied().unwrap_or(0)
}

/// A checked network in flash.
///
/// A model is a view of the blob: only a few numbers are copied, weights are read in place.
#[derive(Debug, Clone, Copy)]
pub struct Model<'a> {
    header: Header,
    manifest: format::Manifest<'a>,
    /// The layers' records.
    records: &'a [u8],
    weights: &'a [u8],
    blob: &'a [u8],
    classes: u16,
}

impl<'a> Model<'a> {
    /// Checks a blob. Bytes after the length that its header states are ignored, so that a whole flash slot can be
    /// given. Takes time in proportion to the blob's length, whatever its bytes are.
    ///
    /// # Errors
    /// [`ParseError`] unless this is a blob of this format version whose checksum, shapes and parameters all
    /// agree. No input makes this panic. The plans' row tables are proved in
    /// [`Network::set_up`](crate::Network::set_up).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let truncated = |needed| ParseError::Truncated { needed, given: bytes.len() };
        match Header::version(bytes) {
            None if bytes.len() < HEADER_BYTES => return Err(truncated(HEADER_BYTES)),
            None => return Err(ParseError::NotABlob),
            Some(VERSION) => {}
            Some(found) => return Err(ParseError::Version { found, supported: VERSION }),
        }
        let header = Header::read(bytes).ok_or(truncated(HEADER_BYTES))?;
        let total = header.total as usize;
        let blob = bytes.get(..total).ok_or(truncated(total))?;
        if bytes.as_ptr().align_offset(SECTION_ALIGN) != 0 {
            return Err(ParseError::Misaligned);
        }
        if blob.len() < HEADER_BYTES {
            return Err(ParseError::Header);
        }
        check_sum(blob)?;
        let manifest_end =
            HEADER_BYTES.checked_add(header.manifest_bytes as usize).ok_or(ParseError::Header)?;
        let weights_start = manifest_end.checked_next_multiple_of(WEIGHTS_ALIGN).ok_or(ParseError::Header)?;
        let manifest = blob.get(HEADER_BYTES..manifest_end).ok_or(ParseError::Header)?;
        let weights = blob.get(weights_start..).ok_or(ParseError::Header)?;
        let padding = blob.get(manifest_end..weights_start).unwrap_or_default();
        if padding.iter().any(|byte| *byte != 0) {
            return Err(ParseError::Header);
        }

        let (manifest, records) =
            postcard::take_from_bytes::<format::Manifest<'_>>(manifest).map_err(|_| ParseError::Manifest)?;
        let mut model = Model { header, manifest, records, weights, blob, classes: 0 };
        model.check_layers()?;
        model.check_plans()?;
        model.check_labels()?;
        Ok(model)
    }

    /// Checks again that no byte of the blob has changed since it was written, weights included: for flash that
    /// wears out or is exposed to radiation, as often as a pass over the blob is worth (`cargo xtask bench` prints
    /// its cost). A run of a changed blob gives wrong scores or [`RunError::Changed`], nothing worse.
    ///
    /// ```
    /// # use skipstone::Model;
    /// # static MODEL: &[u8] = skipstone::include_model!("../../models/digits.skip");
    /// let model = Model::parse(MODEL)?;
    /// // ... and before a decision that matters, or once a day:
    /// model.verify()?;
    /// # Ok::<(), skipstone::error::ParseError>(())
    /// ```
    ///
    /// # Errors
    /// [`ParseError::Checksum`] if a byte has changed.
    ///
    /// [`RunError::Changed`]: crate::error::RunError::Changed
    pub fn verify(&self) -> Result<(), ParseError> {
        // read the bytes again, whatever the compiler knows about them
        check_sum(core::hint::black_box(self.blob))
    }

    /// Walks over the layers once: shapes follow each other, sections exist, there are outputs.
    #[inline(never)]
    fn check_layers(&mut self) -> Result<(), ParseError> {
        if Shape::from(self.manifest.input).is_empty() || self.manifest.layers == u16::MAX {
            return Err(ParseError::Manifest);
        }
        let (mut outputs, mut needed, mut valid, mut classes) = (0, 0, true, 0);
        let mut layers = self.layers();
        while let Some(visited) = layers.visit(&mut |Entry { output, layer, .. }| {
            needed |= Kernels::of(layer);
            let Some((_, softmax)) = output else { return };
            outputs += 1;
            let scores = layer.gives_scores();
            valid &= match softmax {
                Softmax::None => true,
                Softmax::Float => scores,
                Softmax::Fixed(fixed) => scores && fixed.is_valid(),
            };
            if classes == 0 && scores {
                classes = layer.output().channels;
            }
        }) {
            visited?;
        }
        self.classes = classes;
        if !layers.records.rest().is_empty() {
            return Err(ParseError::Manifest);
        }
        if outputs == 0 || outputs > MAX_OUTPUTS || !valid {
            return Err(ParseError::Output);
        }
        let found = self.header.kernels;
        if found & !Kernels::ALL != 0 || needed & !found != 0 {
            return Err(ParseError::Kernels { found, needed });
        }
        Ok(())
    }

    /// Checks that both plans' segments and strips fit the layers, and the header's number of tensors.
    fn check_plans(&self) -> Result<(), ParseError> {
        let mut longest = 0;
        for frame in [false, true] {
            let plan = self.memory_plan(frame).ok_or(ParseError::Plan)?;
            let layers: usize = plan.segments.iter().map(|layers| usize::from(*layers)).sum();
            if layers != usize::from(self.manifest.layers)
                || plan.segments.contains(&0)
                || plan.strips.contains(&0)
            {
                return Err(ParseError::Plan);
            }
            longest = plan.segments.iter().copied().fold(longest, u8::max);
        }
        let tensors = usize::from(longest) + 1;
        let fits = tensors == self.tensors() && tensors <= MAX_TENSORS;
        if fits { Ok(()) } else { Err(ParseError::Plan) }
    }

    fn check_labels(&self) -> Result<(), ParseError> {
        let bytes: usize = self.labels().map(|label| label.len() + 1).sum();
        let labels = self.labels().count();
        let fits = labels == 0 || labels == usize::from(self.classes);
        let whole = bytes == self.manifest.labels_len as usize;
        if fits && whole { Ok(()) } else { Err(ParseError::Labels) }
    }

    /// Name of the network.
    pub const fn name(&self) -> &'a str {
        self.manifest.name
    }

    /// Shape of an image: height x width x channels raw pixel bytes (HWC).
    pub const fn input(&self) -> Shape {
        let format::Shape(height, width, channels) = self.manifest.input;
        Shape::new(height, width, channels)
    }

    /// Number of class scores; 0 if the network has no class scores.
    pub const fn classes(&self) -> usize {
        self.classes as usize
    }

    /// Bytes of the arena with the input frame in it ([`Network::with_frame`](crate::Network::with_frame)).
    pub const fn arena_bytes(&self) -> usize {
        self.header.arena_bytes as usize
    }

    /// Bytes of the arena if the input is fed row by row ([`Network::new`](crate::Network::new)).
    pub const fn arena_bytes_rows(&self) -> usize {
        self.header.arena_bytes_rows as usize
    }

    /// Tensors for which a [`Network`](crate::Network) needs room: its parameter `TENSORS`.
    pub const fn tensors(&self) -> usize {
        self.header.tensors as usize
    }

    /// Kernels that the network needs, as bits: see [`kernels`](crate::kernels).
    pub const fn kernels(&self) -> u16 {
        self.header.kernels
    }

    /// Bytes of the blob.
    pub const fn blob_bytes(&self) -> usize {
        self.blob.len()
    }

    /// The class labels; none if the blob has none.
    pub fn labels(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let labels = section(self.weights, self.manifest.labels, self.manifest.labels_len as usize);
        let mut labels: &[u8] = labels.unwrap_or_default();
        core::iter::from_fn(move || {
            let end = labels.iter().position(|byte| *byte == 0)?;
            let label = labels.get(..end).and_then(|label| core::str::from_utf8(label).ok());
            labels = labels.get(end + 1..).unwrap_or_default();
            label
        })
    }

    /// The label of a class.
    pub fn label(&self, class: usize) -> Option<&'a str> {
        self.labels().nth(class)
    }

    /// The layers, in order of execution.
    // inlined, so that it is made where its caller wants it: it is large
    #[doc(hidden)]
    #[inline(always)]
    pub fn layers(&self) -> Layers<'a> {
        let mut layers =
            Layers { records: self.records(), shapes: [Shape::new(0, 0, 0); MAX_TENSORS], made: 0 };
        layers.push(self.input());
        layers
    }

    /// The layers' records.
    pub(crate) fn records(&self) -> Records<'a> {
        Records::new(self.records, self.manifest.layers, self.weights)
    }

    /// The plan for an input frame in the arena, or for an input fed by rows; `None` if the blob has changed since
    /// it was parsed.
    #[doc(hidden)]
    pub fn memory_plan(&self, frame: bool) -> Option<Plan<'a>> {
        let (plan, arena_bytes) = match frame {
            true => (self.manifest.frame, self.arena_bytes()),
            false => (self.manifest.rows, self.arena_bytes_rows()),
        };
        Some(Plan {
            arena_bytes,
            rows: section(self.weights, plan.rows, usize::try_from(plan.row_count).ok()?)?,
            strips: section(self.weights, plan.strips, self.manifest.layers.into())?,
            segments: section(self.weights, plan.segments, usize::from(plan.segment_count))?,
        })
    }
}

/// The layers of a model, in order of execution.
#[derive(Debug, Clone)]
pub struct Layers<'a> {
    records: Records<'a>,
    /// Shapes of the last tensors, by their number modulo [`MAX_TENSORS`]; empty if a layer cannot read it.
    shapes: [Shape; MAX_TENSORS],
    /// Tensors that have a shape.
    made: usize,
}

impl<'a> Layers<'a> {
    fn push(&mut self, shape: Shape) {
        if let Some(place) = self.shapes.get_mut(self.made % MAX_TENSORS) {
            *place = shape;
        }
        self.made += 1;
    }

    /// Calls `take` with the next layer; `None` after the last.
    fn visit(&mut self, take: &mut dyn FnMut(&Entry<'a>)) -> Option<Result<(), ParseError>> {
        let (shapes, made) = (&self.shapes, self.made);
        let shape = |tensor: u16| {
            let recent = made.checked_sub(tensor.into()).is_some_and(|age| age <= MAX_TENSORS);
            shapes.get(usize::from(tensor) % MAX_TENSORS).copied().filter(|shape| recent && !shape.is_empty())
        };
        let mut output = Shape::new(0, 0, 0);
        let visited = self.records.visit(&shape, &mut |entry| {
            // class scores are not int8 values: no layer can read them
            if !entry.layer.gives_scores() {
                output = entry.layer.output();
            }
            take(entry);
        });
        self.push(output);
        visited
    }
}

impl<'a> Iterator for Layers<'a> {
    type Item = Result<Entry<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut found = None;
        let visited = self.visit(&mut |entry| found = Some(*entry))?;
        visited.map(|()| found).transpose()
    }
}
