//! Names, paths and arguments come from whoever runs on the host: nothing in them may steer a terminal.

use std::io::{self, Write};

use memchr::memchr2;

/// Control characters, and those that hide or turn around what stands next to them.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// Writes `text` with hostile characters as `\n`, `\x1b` or `\u{202e}`. A backslash stays as it is.
pub(super) fn text(out: &mut Vec<u8>, text: &str) -> io::Result<()> {
    let mut plain = 0;
    for (at, c) in text.char_indices().filter(|(_, c)| is_hostile(*c)) {
        out.extend_from_slice(&text.as_bytes()[plain..at]);
        match c {
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            c if c.is_ascii() => write!(out, "\\x{:02x}", u32::from(c))?,
            c => write!(out, "\\u{{{:x}}}", u32::from(c))?,
        }
        plain = at + c.len_utf8();
    }
    out.extend_from_slice(&text.as_bytes()[plain..]);
    Ok(())
}

/// [`text`] as a string of its own.
pub fn plain(from: &str) -> String {
    let mut out = Vec::with_capacity(from.len());
    // Never fails on a vector, and keeps whole characters whole.
    _ = text(&mut out, from);
    String::from_utf8(out).unwrap_or_default()
}

/// JSON escapes only what lies below U+0020. DEL and the C1 controls steer terminals too, and can stand only inside of
/// strings, so each may be replaced by its escape. Looks at the bytes from `from` on.
pub(super) fn json_controls(line: &mut Vec<u8>, from: usize) {
    let mut at = from;
    while let Some(found) = memchr2(0x7f, 0xc2, &line[at..]).map(|n| at + n) {
        let (code, width) = match (line[found], line.get(found + 1)) {
            (0x7f, _) => (0x7f, 1),
            (_, Some(code @ 0x80..=0x9f)) => (*code, 2),
            _ => {
                at = found + 1;
                continue;
            }
        };
        let escape = format!("\\u{code:04x}");
        at = found + escape.len();
        line.splice(found..found + width, escape.into_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        let mut out = Vec::new();
        text(&mut out, "a\x1b[2Jb\nc\u{202e}d\u{9b}e é\\").unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "a\\x1b[2Jb\\nc\\u{202e}d\\u{9b}e é\\"
        );
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = "a\u{7f}b\u{9b}c\u{a0}d";
        let mut line = serde_json::to_vec(value).unwrap();
        json_controls(&mut line, 0);
        assert_eq!(
            std::str::from_utf8(&line).unwrap(),
            "\"a\\u007fb\\u009bc\u{a0}d\""
        );
        assert_eq!(serde_json::from_slice::<String>(&line).unwrap(), value);
    }
}
