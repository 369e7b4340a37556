//! What verbs print: results on standard output, words to a person on standard error.
//!
//! A reader that goes away (`reticle config schema | head -1`) has had enough. That is no
//! fault: what it would have read is dropped, and the verb goes on to its end, because a batch
//! still has files to write and the exit code tells how they fared.

use std::fmt::Display;
use std::io::{self, IsTerminal, StdoutLock, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// Standard output, for as long as somebody reads it.
pub(super) fn stdout() -> WhileRead<StdoutLock<'static>> {
    WhileRead { to: io::stdout().lock(), is_read: true }
}

/// A bar of so many steps on standard error; none when that is no terminal.
pub(super) fn progress_bar(steps: u64, template: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(steps).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Says something on standard error, if anybody listens.
pub(super) fn tell(words: impl Display) {
    // `eprintln!` panics where nobody does, and there is no other place to say so.
    writeln!(io::stderr().lock(), "{words}").ok();
}

/// Writes until the reader has gone; every other error is passed on.
pub(super) struct WhileRead<W> {
    to: W,
    is_read: bool,
}

impl<W: Write> WhileRead<W> {
    fn attempt<T>(
        &mut self,
        dropped: T,
        write: impl FnOnce(&mut W) -> io::Result<T>,
    ) -> io::Result<T> {
        if !self.is_read {
            return Ok(dropped);
        }
        match write(&mut self.to) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.is_read = false;
                Ok(dropped)
            }
            written => written,
        }
    }
}

impl<W: Write> Write for WhileRead<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(bytes.len(), |to| to.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt((), Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_reads_is_dropped_without_an_error() {
        let (reader, to) = io::pipe().unwrap();
        let mut out = WhileRead { to, is_read: true };
        writeln!(out, "read").unwrap();
        drop(reader);
        writeln!(out, "dropped").unwrap();
        serde_json::to_writer(&mut out, &[1, 2]).unwrap();
        out.flush().unwrap();
        assert!(!out.is_read);
    }

    #[test]
    fn a_full_disk_is_still_an_error() {
        let to = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let error = writeln!(WhileRead { to, is_read: true }, "results").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
