//! The network: what firmware sets up once and runs.

use crate::base::error::{RunError, SetUpError};
use crate::blob::model::Model;
use crate::kernels::Kernels;
use crate::run::executor::{Executor, Wait};
use crate::run::output::Output;
use crate::run::scores::Scores;

/// A network in its arena, ready to run.
///
/// # Input
/// A network takes images in one of two ways, chosen when it is set up:
///
/// * **by rows** ([`Network::new`], [`Network::set_up`]): no frame buffer exists. [`Network::run`] reads the rows of
///   a slice, [`Network::run_rows`] calls a closure for each row, and [`Network::push_row`] returns between rows: for
///   camera interrupts and async executors.
/// * **with the frame in the arena** ([`Network::with_frame`], [`Network::set_up_with_frame`]): a camera's DMA
///   writes [`Network::input_mut`], [`Network::run_frame`] runs on it and reuses its space as its rows die. The ways
///   above work too, and fill the frame first.
///
/// Each gives the same bits.
///
/// # Stack
/// On a Cortex-M4, [`Model::parse`], [`Network::set_up`] and a run take at most 2,048 bytes of stack each, below the
/// frame of their caller (`cargo xtask test stack` measures it by painting the stack); nothing is recursive. The
/// network itself, a few kilobytes depending on `TENSORS`, is wherever its owner puts it: in a static, by
/// [`Network::empty`] and [`Network::set_up`]. [`Network::new`] returns it by value, and has it on the stack twice
/// until it does.
///
/// # Parameters
/// `TENSORS` is the maximum number of tensors of a segment (its input and an output for each layer), whose
/// description is held in memory: [`tensors`](crate::tensors) gives it for an embedded model. Segments are the runs
/// of layers that stream through each other.
/// `KERNELS` are the kernels that are linked: [`kernels`](crate::kernels) gives those that an embedded model needs.
///
/// ```
/// use skipstone::{Arena, Model, Network};
///
/// fn classify(blob: &[u8], image: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
///     let model = Model::parse(blob)?;
///     let mut arena = Arena::<{ 12 * 1024 }>::new();
///     let mut network: Network = Network::new(model, &mut arena)?;
///     for class in network.run(image)?.top::<3>() {
///         println!("{} {:.1} %", model.label(class.index).unwrap_or("?"), class.probability * 100.0);
///     }
///     Ok(())
/// }
/// # assert!(classify(&[], &[]).is_err());
/// ```
#[derive(Debug)]
pub struct Network<'a, const TENSORS: usize = 16, const KERNELS: u16 = { Kernels::ALL }> {
    executor: Executor<'a, TENSORS, KERNELS>,
    /// Rows of the current image that were pushed.
    pushed: u16,
}

impl<'a, const TENSORS: usize, const KERNELS: u16> Network<'a, TENSORS, KERNELS> {
    /// A network without a model, for a static: [`Network::set_up`] gives it one in place.
    ///
    /// ```
    /// use skipstone::{Arena, Model, Network};
    ///
    /// // on a board each of these two is in a `static_cell::ConstStaticCell`
    /// let (mut arena, mut network) = (Arena::<{ 4 * 1024 }>::new(), Network::<16>::empty());
    /// let model = Model::parse(skipstone::include_model!("../../models/digits.skip"))?;
    /// network.set_up(model, &mut arena)?;
    /// assert_eq!(network.run(&[0; 64])?.values().len(), 10);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn empty() -> Self {
        Network { executor: Executor::empty(), pushed: 0 }
    }

    /// Sets up a network in `arena`, of which it needs [`Model::arena_bytes_rows`], and proves its memory plan by
    /// running the schedule without arithmetic in the arena.
    ///
    /// # Errors
    /// [`SetUpError`] if the arena is too small or misaligned, a segment has too many tensors, kernels are missing
    /// or the plan is not sound. After that, the only errors of a run are a wrong input length and changed flash.
    pub fn new(model: Model<'a>, arena: &'a mut [u8]) -> Result<Self, SetUpError> {
        // made in the place it is returned to: it is large
        let mut network = Ok(Self::empty());
        if let Ok(made) = &mut network
            && let Err(error) = made.set_up(model, arena)
        {
            network = Err(error);
        }
        network
    }

    /// As [`Network::new`], with the input frame in the arena, of which it needs [`Model::arena_bytes`].
    ///
    /// # Errors
    /// As [`Network::new`].
    pub fn with_frame(model: Model<'a>, arena: &'a mut [u8]) -> Result<Self, SetUpError> {
        let mut network = Ok(Self::empty());
        if let Ok(made) = &mut network
            && let Err(error) = made.set_up_with_frame(model, arena)
        {
            network = Err(error);
        }
        network
    }

    /// Sets the network up in place, as [`Network::new`] does.
    ///
    /// # Errors
    /// As [`Network::new`]; the network has no model then, but keeps the arena for [`Network::swap`].
    pub fn set_up(&mut self, model: Model<'a>, arena: &'a mut [u8]) -> Result<(), SetUpError> {
        self.pushed = 0;
        self.executor.set_up(model, arena, false)
    }

    /// Sets the network up in place, as [`Network::with_frame`] does.
    ///
    /// # Errors
    /// As [`Network::set_up`].
    pub fn set_up_with_frame(&mut self, model: Model<'a>, arena: &'a mut [u8]) -> Result<(), SetUpError> {
        self.pushed = 0;
        self.executor.set_up(model, arena, true)
    }

    /// Replaces the model, in the arena that the network has: after an update, or for several models that take
    /// turns in one arena. Costs what [`Network::set_up`] costs.
    ///
    /// ```
    /// use skipstone::{Arena, Model, Network};
    ///
    /// let (mut arena, mut network) = (Arena::<{ 4 * 1024 }>::new(), Network::<16>::empty());
    /// let model = Model::parse(skipstone::include_model!("../../models/digits.skip"))?;
    /// network.set_up(model, &mut arena)?;
    /// network.run(&[0; 64])?;
    /// network.swap(model)?; // another one, in practice
    /// network.run(&[0; 64])?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Network::set_up`], and [`SetUpError::NoArena`] before the first [`Network::set_up`].
    pub fn swap(&mut self, model: Model<'a>) -> Result<(), SetUpError> {
        self.pushed = 0;
        self.executor.swap(model)
    }

    /// Runs the network on an image: height x width x channels raw pixel bytes (HWC). Returns the class scores; a
    /// network without class scores returns empty ones, its results are in [`Network::outputs`].
    ///
    /// # Errors
    /// [`RunError::Input`] if the image has the wrong length, [`RunError::Empty`] if there is no model,
    /// [`RunError::Changed`] if the blob has changed since it was parsed.
    pub fn run(&mut self, image: &[u8]) -> Result<Scores<'_>, RunError> {
        let shape = self.executor.input()?;
        if image.len() != shape.len() {
            return Err(RunError::Input { needed: shape.len(), given: image.len() });
        }
        let mut rows = image.chunks_exact(shape.row_len().max(1));
        self.run_rows(|_, buffer| copy(rows.next().unwrap_or_default(), buffer))
    }

    /// Runs the network on an image that `feed` delivers: it is called with 0, 1, 2, ... and fills that row of
    /// width x channels raw pixel bytes, each at the time when it is needed. Rows at the bottom that no layer reads
    /// may be omitted.
    ///
    /// # Errors
    /// As [`Network::run`], except for the length.
    pub fn run_rows(&mut self, mut feed: impl FnMut(usize, &mut [u8])) -> Result<Scores<'_>, RunError> {
        let row_len = self.executor.input()?.row_len();
        self.pushed = 0;
        for (row, buffer) in self.executor.frame().chunks_exact_mut(row_len.max(1)).enumerate() {
            feed(row, buffer);
        }
        self.run_fed(&mut feed)
    }

    #[inline(never)]
    fn run_fed(&mut self, feed: &mut dyn FnMut(usize, &mut [u8])) -> Result<Scores<'_>, RunError> {
        self.executor.begin()?;
        while let Wait::Row(row) = self.executor.advance()? {
            self.executor.feed(row, feed)?;
        }
        self.executor.scores()
    }

    /// Takes the next row of an image (width x channels raw pixel bytes), computes everything that it makes
    /// possible, and returns: `None` until the last row of the image, then the class scores. The row after that
    /// begins the next image.
    ///
    /// Between rows the caller can do anything else, such as awaiting the camera:
    ///
    /// ```
    /// # use skipstone::{Arena, Model, Network};
    /// # let model = Model::parse(skipstone::include_model!("../../models/digits.skip"))?;
    /// # let mut arena = Arena::<{ 4 * 1024 }>::new();
    /// # let mut network: Network = Network::new(model, &mut arena)?;
    /// # let image = [0; 64];
    /// for row in image.chunks(8) {
    ///     if let Some(scores) = network.push_row(row)? {
    ///         println!("{:?}", scores.top::<1>());
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`RunError::Input`] if the row has the wrong length; the image can go on with a right one. Otherwise as
    /// [`Network::run`]; the next row begins an image then.
    pub fn push_row(&mut self, row: &[u8]) -> Result<Option<Scores<'_>>, RunError> {
        let shape = self.executor.input()?;
        if row.len() != shape.row_len() {
            return Err(RunError::Input { needed: shape.row_len(), given: row.len() });
        }
        let index = core::mem::replace(&mut self.pushed, 0);
        self.push(index, row)?;
        if index + 1 < shape.height {
            self.pushed = index + 1;
            return Ok(None);
        }
        self.executor.scores().map(Some)
    }

    #[inline(never)]
    fn push(&mut self, index: u16, row: &[u8]) -> Result<(), RunError> {
        let executor = &mut self.executor;
        let start = usize::from(index) * row.len();
        if let Some(place) = executor.frame().get_mut(start..start + row.len()) {
            copy(row, place);
            if index + 1 == executor.input()?.height {
                executor.begin()?;
                executor.advance()?;
            }
            return Ok(());
        }
        if index == 0 {
            executor.begin()?;
            executor.advance()?;
        }
        // rows at the bottom that no layer reads are not waited for
        if executor.is_running() {
            executor.feed(index, &mut |_, buffer| copy(row, buffer))?;
            executor.advance()?;
        }
        Ok(())
    }

    /// Discards the rows that were pushed: the next row begins an image.
    pub const fn restart(&mut self) {
        self.pushed = 0;
    }

    /// The input frame in the arena: height x width x channels raw pixel bytes (HWC), to be filled before
    /// [`Network::run_frame`], which overwrites it. Empty if the network is fed by rows, or has no model.
    pub fn input_mut(&mut self) -> &mut [u8] {
        self.executor.frame()
    }

    /// Runs the network on the frame in [`Network::input_mut`].
    ///
    /// # Errors
    /// [`RunError::Empty`] if there is no model, [`RunError::NoFrame`] if the network is fed by rows,
    /// [`RunError::Changed`] if the blob has changed since it was parsed.
    pub fn run_frame(&mut self) -> Result<Scores<'_>, RunError> {
        self.executor.input()?;
        if !self.executor.has_frame() {
            return Err(RunError::NoFrame);
        }
        self.pushed = 0;
        self.run_fed(&mut |_, _| {})
    }

    /// An output of the last run by its name; `None` if there is no such output, or no run has ended since the
    /// network was set up.
    pub fn output(&self, name: &str) -> Option<Output<'_>> {
        self.outputs().find(|output| output.name() == name)
    }

    /// All outputs of the last run, in order of their layers; none if no run has ended since the network was set
    /// up.
    pub fn outputs(&self) -> impl Iterator<Item = Output<'_>> {
        (0..).map_while(|index| self.executor.output(index))
    }
}

fn copy(from: &[u8], to: &mut [u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}
