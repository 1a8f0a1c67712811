//! A place in a file, shown with its line and a mark under it.

use std::{fmt, ops::Range, path::PathBuf};

/// One thing wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub path: PathBuf,
    /// `None`: the file as a whole.
    pub place: Option<Place>,
    pub message: String,
}

/// Where it is, and the text there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    text: String,
    /// How many characters are marked.
    width: usize,
}

impl Place {
    pub(super) fn of(text: &str, span: &Range<usize>) -> Self {
        let start = floor(text, span.start);
        let begin = text[..start].rfind('\n').map_or(0, |i| i + 1);
        let end = text[start..].find('\n').map_or(text.len(), |i| start + i);
        let marked = floor(text, span.end).clamp(start, end);
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: text[begin..start].chars().count() + 1,
            text: text[begin..end].trim_end_matches('\r').to_owned(),
            width: text[start..marked].chars().count().max(1),
        }
    }
}

fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len()))
        .rev()
        .find(|i| text.is_char_boundary(*i))
        .unwrap_or(0)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(p) = &self.place else {
            return write!(f, "{}: {}", self.path.display(), self.message);
        };
        let number = p.line.to_string();
        let gutter = " ".repeat(number.len());
        // Tabs stay in front of the mark, so that it stands under its text; nothing steers the terminal.
        let line: String = p
            .text
            .chars()
            .map(|c| {
                if c.is_control() && c != '\t' {
                    '\u{fffd}'
                } else {
                    c
                }
            })
            .collect();
        let indent: String = line
            .chars()
            .take(p.column - 1)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        writeln!(
            f,
            "{}:{}:{}: {}",
            self.path.display(),
            p.line,
            p.column,
            self.message
        )?;
        writeln!(f, " {number} | {line}")?;
        write!(f, " {gutter} | {indent}{}", "^".repeat(p.width))
    }
}
