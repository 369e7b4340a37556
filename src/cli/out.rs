//! What verbs print: results on standard output, words to a person on standard error.
//!
//! A reader that goes away (`reticle config schema | head -1`) has had enough. That is no
//! fault: what it would have read is dropped, and the verb goes on to its end, because a batch
//! still has files to write and the exit code tells how they fared.
//!
//! Names and texts of others are among what is printed. What a terminal would obey goes out as
//! `\u001b` and the like ([`plain_text`]), here and nowhere else, so that no verb can forget it.

use std::fmt::Display;
use std::io::{self, IsTerminal, StdoutLock, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use indicatif::{ProgressBar, ProgressStyle};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::batch::Observer;
use reticle_base::plain_text;

/// Standard output, for as long as somebody reads it.
pub(super) fn stdout() -> Plain<WhileRead<StdoutLock<'static>>> {
    Plain::new(WhileRead { to: io::stdout().lock(), is_read: true })
}

/// A bar of so many steps on standard error; none when that is no terminal.
pub(super) fn progress_bar(steps: u64, template: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(steps).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Whoever runs a batch at a terminal: a bar on standard error, words beside it, and a signal that
/// ends it early. A second signal kills.
pub(super) struct Terminal {
    template: &'static str,
    bar: OnceLock<ProgressBar>,
    signals: [(i32, Arc<AtomicBool>); 2],
}

impl Terminal {
    /// The bar looks as `template` says, once it is known how much there is to do.
    pub(super) fn new(template: &'static str) -> Self {
        let signals = [SIGINT, SIGTERM].map(|signal| (signal, Arc::default()));
        for (signal, came) in &signals {
            let registered = flag::register_conditional_default(*signal, Arc::clone(came))
                .and_then(|_| flag::register(*signal, Arc::clone(came)));
            if let Err(error) = registered {
                tracing::debug!(signal, %error, "cannot listen for a signal; it kills at once");
            }
        }
        Self { template, bar: OnceLock::new(), signals }
    }

    fn signal(&self) -> Option<i32> {
        let mut came = self.signals.iter().filter(|(_, came)| came.load(Ordering::SeqCst));
        came.next().map(|(signal, _)| *signal)
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }

    /// Ends this process as the signal asked that cancelled the batch: a shell that repeats a verb
    /// must see that it was a signal.
    pub(super) fn end(&self, is_cancelled: bool) {
        let Some(signal) = self.signal().filter(|_| is_cancelled) else { return };
        tell(format_args!("reticle: {}", crate::batch::Cancelled));
        if let Err(error) = signal_hook::low_level::emulate_default_handler(signal) {
            tracing::debug!(signal, %error, "cannot end by the signal");
        }
    }
}

impl Observer for Terminal {
    fn begin(&self, steps: u64) {
        self.bar.get_or_init(|| progress_bar(steps, self.template));
    }

    fn advance(&self) {
        if let Some(bar) = self.bar.get() {
            bar.inc(1);
        }
    }

    fn say(&self, words: &str) {
        let say = || tell(format_args!("reticle: {words}"));
        match self.bar.get() {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }

    fn is_cancelled(&self) -> bool {
        self.signal().is_some()
    }
}

/// Says something on standard error, in one line, if anybody listens.
pub(super) fn tell(words: impl Display) {
    // `eprintln!` panics where nobody does, and there is no other place to say so.
    writeln!(io::stderr().lock(), "{}", plain_text::OneLine(words)).ok();
}

/// As [`tell`], for what has several lines of its own: all faults of a file, a place in it.
pub(super) fn tell_lines(words: impl Display) {
    writeln!(io::stderr().lock(), "{}", plain_text::lines(&words.to_string())).ok();
}

/// Writes text with nothing in it that a terminal obeys.
pub(super) struct Plain<W> {
    to: W,
    /// The beginning of a character whose other bytes are still to come: three bytes at most.
    begun: Vec<u8>,
}

impl<W: Write> Plain<W> {
    fn new(to: W) -> Self {
        Self { to, begun: Vec::new() }
    }
}

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begun.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.begun) {
            Ok(_) => self.begun.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            // No text: replaced below.
            Err(_) => self.begun.len(),
        };
        let rest = self.begun.split_off(whole);
        let text = std::mem::replace(&mut self.begun, rest);
        self.to.write_all(plain_text::lines(&String::from_utf8_lossy(&text)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
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
    fn what_a_terminal_obeys_is_shown_and_not_sent() {
        let said = "plate\u{1b}]0;x\u{7}\u{9b}2J\u{202e}µ\n";
        let plain = "plate\\u001b]0;x\\u0007\\u009b2J\\u202eµ\n";
        let mut out = Plain::new(Vec::new());
        write!(out, "{said}").unwrap();
        assert_eq!(String::from_utf8(out.to).unwrap(), plain);
        // Byte by byte, and with what is no text.
        let mut out = Plain::new(Vec::new());
        for byte in said.as_bytes() {
            out.write_all(&[*byte]).unwrap();
        }
        out.write_all(b"\xff").unwrap();
        assert_eq!(String::from_utf8(out.to).unwrap(), format!("{plain}\u{fffd}"));
    }

    #[test]
    fn json_means_the_same_afterwards() {
        let value = serde_json::json!({ "name": "a\u{9b}\u{1b}\u{202e}\n\"\\" });
        let mut out = Plain::new(Vec::new());
        serde_json::to_writer_pretty(&mut out, &value).unwrap();
        assert!(!String::from_utf8(out.to.clone()).unwrap().contains('\u{9b}'));
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&out.to).unwrap(), value);
    }

    #[test]
    fn a_full_disk_is_still_an_error() {
        let to = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let error = writeln!(WhileRead { to, is_read: true }, "results").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
