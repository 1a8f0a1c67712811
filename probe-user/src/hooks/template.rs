//! Arguments of a program with places for what a finding says: `"{service}"`.
//!
//! A value fills its place inside of one argument and nothing else: no shell reads it, it is never split, and it can't
//! become an option. What steers a terminal is plain, an argument has at most [`MAX_BYTES`] from each value, and an
//! argument that begins with a place never begins with `-`: a space is put before it.

use std::{fmt, str::FromStr};

use super::notification::Values;
use crate::{config::load, report};

/// No value takes more than this; the rest is cut off.
pub const MAX_BYTES: usize = 4096;

/// What can stand between braces.
pub const NAMES: [&str; 11] = [
    "service",
    "kind",
    "severity",
    "state",
    "id",
    "subject",
    "summary",
    "cause",
    "resolution",
    "count",
    "hook",
];

/// One argument. `{{` and `}}` stand for braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// One of [`NAMES`].
    Value(&'static str),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("unknown placeholder {{{name}}}{}", hint(name))]
    Unknown { name: String },
    #[error("{text:?} has a brace without its other one; a brace itself is written twice: {{{{ or }}}}")]
    Brace { text: String },
    #[error("{text:?} contains a zero byte, which no argument can")]
    Zero { text: String },
}

fn hint(name: &str) -> String {
    match load::nearest(name, &NAMES) {
        Some(nearest) => format!(", did you mean {{{nearest}}}?"),
        None => format!(", expected one of {}", NAMES.join(", ")),
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        if text.contains('\0') {
            return Err(TemplateError::Zero {
                text: text.to_owned(),
            });
        }
        let brace = || TemplateError::Brace {
            text: text.to_owned(),
        };
        let mut parts = vec![Part::Text(String::new())];
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '{' | '}' if chars.peek() == Some(&c) => {
                    chars.next();
                    push(&mut parts, c);
                }
                '{' => {
                    let mut name = String::new();
                    loop {
                        match chars.next().ok_or_else(brace)? {
                            '}' => break,
                            '{' => return Err(brace()),
                            c => name.push(c),
                        }
                    }
                    let known = NAMES.into_iter().find(|n| *n == name);
                    parts.push(Part::Value(known.ok_or(TemplateError::Unknown { name })?));
                }
                '}' => return Err(brace()),
                c => push(&mut parts, c),
            }
        }
        parts.retain(|p| *p != Part::Text(String::new()));
        Ok(Self(parts))
    }
}

fn push(parts: &mut Vec<Part>, c: char) {
    match parts.last_mut() {
        Some(Part::Text(text)) => text.push(c),
        _ => parts.push(Part::Text(c.to_string())),
    }
}

impl Template {
    /// Whether it is the same whatever the finding says.
    pub fn is_constant(&self) -> bool {
        !self.0.iter().any(|p| matches!(p, Part::Value(_)))
    }

    /// The argument.
    pub fn fill(&self, values: &Values) -> String {
        let mut filled = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Value(name) => filled.push_str(&clean(values.get(name))),
            }
        }
        let begins_with_value = matches!(self.0.first(), Some(Part::Value(_)));
        if begins_with_value && filled.starts_with('-') {
            filled.insert(0, ' ');
        }
        filled
    }
}

/// One line without anything that steers a terminal, and not too long.
pub fn clean(value: &str) -> String {
    let mut text = report::plain(value);
    if text.len() > MAX_BYTES {
        text.truncate(text.floor_char_boundary(MAX_BYTES));
        text.push('…');
    }
    text
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            match part {
                Part::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}"))?,
                Part::Value(name) => write!(f, "{{{name}}}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::testing::values;

    fn fill(template: &str, summary: &str) -> String {
        let template: Template = template.parse().unwrap();
        template.fill(&values(summary))
    }

    #[test]
    fn a_value_stays_inside_its_argument() {
        assert_eq!(fill("{service}", ""), "annad");
        assert_eq!(
            fill("{kind}/{severity}: {summary}", "a b\tc"),
            "stale-socket/critical: a b\\tc"
        );
        assert_eq!(fill("{{{service}}}", ""), "{annad}");
        assert_eq!(
            fill("--text={summary}", "-x \"$(rm -rf /)\""),
            "--text=-x \"$(rm -rf /)\""
        );
        assert_eq!(fill("{summary}", "a\0b\nc\x1b[2J"), "a\\x00b\\nc\\x1b[2J");
    }

    #[test]
    fn a_value_never_becomes_an_option() {
        assert_eq!(fill("{summary}", "-rf (5) was killed"), " -rf (5) was killed");
        assert_eq!(
            fill("{resolution}{summary}", "--output=/etc/passwd"),
            " --output=/etc/passwd"
        );
        // What the configuration itself says stays as it is.
        assert_eq!(fill("-{summary}", "v"), "-v");
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let filled = fill("{summary}", &"é".repeat(MAX_BYTES));
        assert_eq!(filled.len(), MAX_BYTES + '…'.len_utf8());
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for (text, expected) in [
            (
                "{servce}",
                "unknown placeholder {servce}, did you mean {service}?",
            ),
            (
                "{}",
                "unknown placeholder {}, expected one of service, kind, severity, state, id, subject, summary, cause, resolution, count, hook",
            ),
            (
                "a}b",
                "\"a}b\" has a brace without its other one; a brace itself is written twice: {{ or }}",
            ),
            (
                "{service",
                "\"{service\" has a brace without its other one; a brace itself is written twice: {{ or }}",
            ),
            (
                "{a{b}}",
                "\"{a{b}}\" has a brace without its other one; a brace itself is written twice: {{ or }}",
            ),
            ("a\0", "\"a\\0\" contains a zero byte, which no argument can"),
        ] {
            assert_eq!(text.parse::<Template>().unwrap_err().to_string(), expected);
        }
        for text in ["", "plain", "{service} {{x}} {id}"] {
            assert_eq!(text.parse::<Template>().unwrap().to_string(), text);
        }
    }
}
