//! Rust source as these tests read it: files, and words without comments and quotes.

use std::path::{Path, PathBuf};

/// All `.rs` files below a folder, sorted; none where it does not exist.
pub(super) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a folder of the repository can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// A word, `::`, or one other character, and the line that it stands in.
pub(super) struct Token {
    pub(super) text: String,
    pub(super) line: usize,
}

/// The tokens of Rust source, without comments and without what is in quotes.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let peek = |at: usize| chars.get(at).copied().unwrap_or('\0');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut at = 0;
    while at < chars.len() {
        let start = at;
        match chars[at] {
            '/' if peek(at + 1) == '/' => {
                while at < chars.len() && peek(at) != '\n' {
                    at += 1;
                }
            }
            '/' if peek(at + 1) == '*' => {
                let mut nested = 0;
                loop {
                    match (peek(at), peek(at + 1)) {
                        ('/', '*') => (nested, at) = (nested + 1, at + 2),
                        ('*', '/') => (nested, at) = (nested - 1, at + 2),
                        _ => at += 1,
                    }
                    if nested == 0 || at >= chars.len() {
                        break;
                    }
                }
            }
            '"' => at = end_of_string(&chars, at),
            'r' | 'b' | 'c' if raw_hashes(&chars, at).is_some() => {
                let (hashes, body) = raw_hashes(&chars, at).expect("the guard saw it");
                at = body;
                while at < chars.len()
                    && !(peek(at) == '"' && (1..=hashes).all(|n| peek(at + n) == '#'))
                {
                    at += 1;
                }
                at += 1 + hashes;
            }
            // A character, not a lifetime: '\…' or 'x'.
            '\'' if peek(at + 1) == '\\' => {
                at += 3;
                while at < chars.len() && peek(at) != '\'' {
                    at += 1;
                }
                at += 1;
            }
            '\'' if peek(at + 2) == '\'' => at += 3,
            c if is_word(c) => {
                while is_word(peek(at)) {
                    at += 1;
                }
                tokens.push(Token { text: chars[start..at].iter().collect(), line });
            }
            ':' if peek(at + 1) == ':' => {
                tokens.push(Token { text: "::".to_owned(), line });
                at += 2;
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(Token { text: c.to_string(), line });
                }
                at += 1;
            }
        }
        at = at.min(chars.len());
        line += chars[start..at].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn end_of_string(chars: &[char], open: usize) -> usize {
    let mut at = open + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// For `r"`, `r##"`, `br"`, `cr"`: how many hashes, and where the text begins.
fn raw_hashes(chars: &[char], at: usize) -> Option<(usize, usize)> {
    let after_r = match (chars.get(at)?, chars.get(at + 1)?) {
        ('r', _) => at + 1,
        ('b' | 'c', 'r') => at + 2,
        _ => return None,
    };
    let hashes = chars[after_r..].iter().take_while(|c| **c == '#').count();
    (chars.get(after_r + hashes) == Some(&'"')).then_some((hashes, after_r + hashes + 1))
}
