//! The reference as a manual page, in troff's man macros.

use std::fmt::Write;

use super::{Table, VALUES};

const DESCRIPTION: &str = "One file, /etc/probe/probe.toml, and further ones, /etc/probe/probe.d/*.toml, in the order of their names. \
A key that does not exist is an error that names the place and the nearest key that does. No file at all is valid: probe then \
watches what it discovers. \"probe config show\" prints what counts, with every default.";

const EXAMPLE: &str = r#"[[service]]
name = "redis"
exe = "/usr/bin/redis-server"
pid_file = "/run/redis/redis-server.pid"
listen = ["unix:/run/redis/redis-server.sock", "tcp:127.0.0.1:6379"]
"#;

pub(super) fn write(tables: &[Table]) -> String {
    let mut page = format!(
        ".TH PROBE.TOML 5 \"\" \"probe {}\"\n.SH NAME\nprobe.toml \\- what probe watches, and what it does about it\n",
        env!("CARGO_PKG_VERSION")
    );
    // Writing to a string cannot fail.
    let _ = write!(
        page,
        ".SH SYNOPSIS\n/etc/probe/probe.toml\n.br\n/etc/probe/probe.d/*.toml\n.SH DESCRIPTION\n{}\n",
        text(DESCRIPTION)
    );
    for table in tables {
        let _ = match &table.within {
            None => writeln!(page, ".SH \"{}\"", text(&table.title)),
            Some(within) => writeln!(page, ".SS \"{} in {}\"", text(&table.title), text(within)),
        };
        if !table.text.is_empty() {
            let _ = writeln!(page, "{}", text(&table.text));
        }
        for key in &table.keys {
            let _ = write!(page, ".TP\n\\fB{}\\fR ({}", text(&key.name), text(&key.kind));
            let _ = match &key.default {
                Some(value) => write!(page, "; default: {}", text(value)),
                None if key.required => write!(page, "; required"),
                None => Ok(()),
            };
            let _ = writeln!(page, ")\n{}", text(&key.text));
            for (word, meaning) in &key.words {
                let _ = writeln!(page, ".br\n\\(bu \\fB{}\\fR {}", text(word), text(meaning));
            }
        }
    }
    page.push_str(".SH VALUES\n");
    for (_, kind, form) in VALUES {
        let _ = writeln!(page, ".TP\n{}\n{}", text(kind), text(&form.replace('`', "")));
    }
    let _ = write!(page, ".SH EXAMPLES\n.nf\n{}.fi\n", text(EXAMPLE));
    page.push_str(".SH SEE ALSO\n.BR probe (1),\n.BR probe\\-config (1),\n.BR probe\\-daemon (1)\n");
    page
}

/// Nothing in it is a request to troff.
fn text(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-").replace('`', "");
    let lines = escaped.lines().map(|line| match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}"),
        false => line.to_owned(),
    });
    let mut joined = lines.collect::<Vec<_>>().join("\n");
    if text.ends_with('\n') {
        joined.push('\n');
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_a_request() {
        assert_eq!(text(".TH a-b\n'x `c\\d`\n"), "\\&.TH a\\-b\n\\&'x c\\ed\n");
    }
}
