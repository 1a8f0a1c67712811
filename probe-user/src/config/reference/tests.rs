use std::{fs, path::Path};

use super::*;

#[test]
fn every_key_is_there_and_says_what_it_means() {
    let tables = tables(schema::schema().as_value());
    let titles: Vec<&str> = tables.iter().map(|t| t.title.as_str()).collect();
    assert_eq!(
        titles,
        [
            "[probe]",
            "bounds",
            "retention",
            "timeouts",
            "[[service]]",
            "crash_loop",
            "heal",
            "heartbeat",
            "signals",
            "[[hook]]",
            "[limits]"
        ]
    );
    for table in &tables {
        assert!(!table.text.is_empty(), "{} says nothing", table.title);
        for key in table.keys.iter().filter(|k| k.name != "NAME") {
            assert!(!key.text.is_empty(), "{}: {} says nothing", table.title, key.name);
        }
    }
    let service = &tables[4];
    assert_eq!(service.keys[0].name, "name");
    let keep = service.keys.iter().find(|k| k.name == "keep_instance").unwrap();
    assert_eq!(
        (keep.kind.as_str(), keep.default.as_deref()),
        ("a word", Some("\"report\""))
    );
    assert!(keep.words.iter().any(|(w, t)| w == "pid-file" && !t.is_empty()));
}

#[test]
fn every_text_of_a_form_of_its_own_is_explained() {
    let schema = schema::schema();
    let definitions = schema.as_value()["definitions"].as_object().unwrap();
    for (name, definition) in definitions.iter().filter(|(_, d)| d["pattern"].is_string()) {
        assert!(VALUES.iter().any(|(n, _, _)| n == name), "{name}: {definition}");
    }
}

#[test]
fn the_book_has_it() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let kept = fs::read_to_string(&page).unwrap_or_default();
    assert!(
        kept == reference(Form::Markdown),
        "{} is out of date: run `cargo xtask docs`",
        page.display()
    );
}
