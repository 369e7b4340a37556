//! Text of others, made plain before it is shown to a person.
//!
//! A file's name, a session's name or a server's answer may hold what a terminal obeys (escape
//! sequences, which move the cursor, rewrite lines or set the clipboard) or what turns the order
//! of letters round. Here each such character becomes `\u001b` and the like: readable, harmless,
//! and, inside a string of JSON or TOML, still the same string.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Whether a terminal does something else with it than to show it: control characters (C0, DEL,
/// C1) and those that override the direction of text. Line breaks and tabs are among them.
pub fn is_active(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text with nothing active in it, on one line.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// Text with nothing active in it but its line breaks and tabs.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

fn escaped(text: &str, may_stay: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_bad = |c: char| is_active(c) && !may_stay(c);
    if !text.contains(is_bad) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' if is_bad(c) => plain.push_str("\\n"),
            c if is_bad(c) => write!(plain, "\\u{:04x}", u32::from(c)).unwrap_or_default(),
            c => plain.push(c),
        }
    }
    Cow::Owned(plain)
}

/// Shows as [`one_line`].
pub struct OneLine<T>(pub T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.0.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind: OSC 52 sets the clipboard, CSI clears the screen, C1 does so in one
    /// character, and RLO makes `gpj.exe` read as `exe.jpg`.
    const HOSTILE: &str = "a\u{1b}]52;c;cm0=\u{7}\r\u{9b}2J\u{7f}\u{202e}gpj\u{2069}";

    #[test]
    fn nothing_active_is_left() {
        for plain in [one_line(HOSTILE), lines(HOSTILE)] {
            assert!(!plain.contains(is_active), "{plain:?}");
            assert_eq!(plain, "a\\u001b]52;c;cm0=\\u0007\\u000d\\u009b2J\\u007f\\u202egpj\\u2069");
        }
    }

    #[test]
    fn line_breaks_stay_where_they_may() {
        assert_eq!(lines("a\n\tb"), "a\n\tb");
        assert_eq!(one_line("a\n\tb"), "a\\n\\u0009b");
        assert!(matches!(one_line("plate 7 µ 細胞"), Cow::Borrowed(_)));
    }

    #[test]
    fn inside_json_it_is_still_the_same_string() {
        let json = serde_json::to_string(HOSTILE).unwrap();
        let back: String = serde_json::from_str(&lines(&json)).unwrap();
        assert_eq!(back, HOSTILE);
    }
}
