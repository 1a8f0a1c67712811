//! Rows of the tables that show what was measured.

use std::{env, fs::File, io::Write};

/// Prints `| TABLE | CELL | … |`, and adds it to the file that `$PROBE_TEST_TABLES` names.
pub fn row(table: &str, cells: &[&str]) {
    let row = format!("| {table} | {} |", cells.join(" | "));
    println!("{row}");
    if let Some(file) = env::var_os("PROBE_TEST_TABLES") {
        let opened = File::options().create(true).append(true).open(file);
        let written = opened.and_then(|mut file| writeln!(file, "{row}"));
        written.expect("write $PROBE_TEST_TABLES");
    }
}
