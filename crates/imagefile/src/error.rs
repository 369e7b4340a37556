//! Why an image file was not read, and what to do.

use std::io;
use std::path::{Path, PathBuf};

/// One file, or one page of it, that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}{} {problem}", path.display(), page.map(|page| format!("#{page}")).unwrap_or_default())]
pub struct ImageFileError {
    path: PathBuf,
    page: Option<usize>,
    problem: Problem,
}

impl ImageFileError {
    pub(super) fn new(path: &Path, page: Option<usize>, problem: Problem) -> Self {
        Self { path: path.to_owned(), page, problem }
    }

    /// Which file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which page of it, from 0, where the file has several.
    pub fn page(&self) -> Option<usize> {
        self.page
    }

    /// What is wrong with it; reads as "`FILE` `PROBLEM`".
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

/// What is wrong with an image.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The operating system refused.
    #[error("cannot be read ({0}); check that it is there and that this user may read it")]
    Unreadable(io::Error),
    /// A folder, a pipe, a device.
    #[error("is not a file; give an image file, or a folder where folders are taken")]
    NotAFile,
    /// No bytes.
    #[error("is empty (0 bytes); export or copy it again")]
    Empty,
    /// Neither TIFF nor PNG nor JPEG, nor anything else that is known.
    #[error("is not a TIFF, PNG or JPEG image; export it as one of these")]
    NotAnImage,
    /// The file contradicts itself or ends too early.
    #[error("is damaged or cut short ({0}); export or copy it again")]
    Damaged(String),
    /// A file of another format, which has a name.
    #[error("is {what}, which is not read here; {remedy}")]
    Foreign {
        /// The format, with its article.
        what: &'static str,
        /// What a person does to have it read.
        remedy: &'static str,
    },
    /// More than one channel that matter.
    #[error(
        "is a colour image; Reticle segments one channel: choose `red`, `green` or `blue` with \
         `--channel` (`channel` in [source]), or export one channel as greyscale"
    )]
    Colour,
    /// Several channels, and none is chosen.
    #[error(
        "holds {count} channels ({channels}); Reticle segments one channel: choose it by name or \
         number with `--channel` (`channel` in [source]), or export one channel as greyscale"
    )]
    Channels {
        /// How many there are.
        count: usize,
        /// Their numbers, from 1, and names.
        channels: String,
    },
    /// Well formed, but of a kind that is not read here.
    #[error("{0}")]
    Unsupported(String),
    /// Larger than the caller allowed.
    #[error(
        "has {width}×{height} pixels, above the limit of {limit}; crop it or export it in tiles{}",
        .to_raise
            .map(|key| format!(", or raise {key} if the box has the memory"))
            .unwrap_or_default()
    )]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Pixels allowed.
        limit: u64,
        /// What raises the limit, where something does.
        to_raise: Option<&'static str>,
    },
    /// More memory than there is.
    #[error(
        "has {width}×{height} pixels, which take {} MB of memory with all that is made of them; {} \
         MB can be had within {within}; crop it or export it in tiles, or give Reticle more memory",
        .need.div_ceil(1_000_000), .room / 1_000_000
    )]
    NoMemory {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Bytes that are needed.
        need: u64,
        /// Bytes that this process may have in all.
        room: u64,
        /// What sets that limit.
        within: &'static str,
    },
    /// More pages than the caller allowed.
    #[error(
        "has more than {limit} pages; export it as several files, or raise `max_pages` in [source]"
    )]
    TooManyPages {
        /// Pages allowed.
        limit: usize,
    },
    /// A larger file than the caller allowed.
    #[error(
        "has {bytes} bytes, above the limit of {limit}; export it as several files, or raise \
         `max_file_bytes` in [source]"
    )]
    TooManyBytes {
        /// Its size.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Reading took longer than the caller allowed.
    #[error(
        "was not read within {seconds} s; see whether its drive is slow, export it uncompressed, or \
         raise `max_read_s` in [source]"
    )]
    TooSlow {
        /// Seconds allowed.
        seconds: u64,
    },
    /// Pages whose pixels are the same bytes of the file: a small file without end.
    #[error(
        "says it has {claimed} bytes of pixels in {bytes} bytes, because its pages share them, which \
         no microscope writes; export it again, each page with pixels of its own"
    )]
    SharedPixels {
        /// Bytes of all pages together.
        claimed: u64,
        /// Bytes of the file.
        bytes: u64,
    },
    /// Writing failed.
    #[error("cannot be written ({0}); check the folder, its permissions and the free space")]
    Unwritable(io::Error),
}

impl Problem {
    /// Whether later pages of the same file are in doubt, too.
    pub(super) fn ends_the_file(&self) -> bool {
        !matches!(
            self,
            Self::Colour
                | Self::Channels { .. }
                | Self::Unsupported(_)
                | Self::TooLarge { .. }
                | Self::NoMemory { .. }
        )
    }

    /// Whether it is above a limit that a person may raise: another time it may be read.
    pub fn is_limit(&self) -> bool {
        matches!(
            self,
            Self::TooLarge { .. }
                | Self::NoMemory { .. }
                | Self::TooManyPages { .. }
                | Self::TooManyBytes { .. }
                | Self::TooSlow { .. }
        )
    }

    /// A well-formed image of a kind that is not read here.
    pub(super) fn kind(what: &str) -> Self {
        Self::Unsupported(format!("{what}; export it as 8-bit or 16-bit greyscale"))
    }
}

/// An early end is damage to the file; all else is the operating system's.
impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged("it ends too early".to_owned()),
            // Decoders report corrupt streams so.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Unreadable(error),
        }
    }
}
