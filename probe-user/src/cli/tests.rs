use clap::CommandFactory;

use super::*;

fn watch(args: &[&str]) -> Result<Watch, String> {
    let cli =
        Cli::try_parse_from(["probe", "watch"].iter().chain(args)).map_err(|e| one_line(&e.to_string()))?;
    match cli.command {
        Command::Watch(w) => Ok(w),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn options_declare_one_service() {
    let service = |args: &[&str]| watch(args).unwrap().declared.service();
    assert_eq!(service(&[]), None);
    let s = service(&[
        "--unix",
        "/run/a.sock",
        "--unix",
        "@b",
        "--tcp",
        "80",
        "--udp",
        "[::1]:53",
        "--pid",
        "7",
    ])
    .unwrap();
    assert_eq!(s.name, "unix:/run/a.sock");
    let listen: Vec<String> = s.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["unix:/run/a.sock", "unix:@b", "tcp:80", "udp:[::1]:53"]);
    assert_eq!(s.pid, Some(7));
    assert!(s.expected);
    let s = service(&["--pid-file", "/run/x/redis.pid", "--tcp", "127.0.0.1:6379"]).unwrap();
    assert_eq!(
        (s.name.as_str(), s.pid_file.as_deref()),
        ("redis", Some("/run/x/redis.pid"))
    );
    let s = service(&["--pid-file", "/run/x/redis.pid", "--exe", "/usr/bin/redis-server"]).unwrap();
    assert_eq!(s.name, "redis-server");
    assert_eq!(service(&["--pid", "812"]).unwrap().name, "pid-812");
}

#[test]
fn paths_are_meant_from_here() {
    let here = std::env::current_dir().unwrap();
    let s = watch(&["--unix", "a.sock", "--exe", "./bin/d"])
        .unwrap()
        .declared
        .service()
        .unwrap();
    assert_eq!(s.listen[0].path(), Some(here.join("a.sock").as_path()));
    assert_eq!(s.exe.as_deref(), here.join("bin/d").to_str());
}

#[test]
fn what_is_wrong_fits_on_one_line() {
    for (args, expected) in [
        (
            &["--tcp", "localhost:80"][..],
            "invalid value 'localhost:80' for '--tcp <[ADDR:]PORT>': \"tcp:localhost:80\" is no address: \"localhost\" is no IPv4 \
             address (an IPv6 address stands in brackets, a host name is not looked up); expected unix:/path, unix:@name, \
             tcp:[ADDR:]PORT or udp:[ADDR:]PORT",
        ),
        (
            &["--udp", "0"],
            "invalid value '0' for '--udp <[ADDR:]PORT>': \"udp:0\" is no address: \"0\" is no port from 1 to 65535; \
             expected unix:/path, unix:@name, tcp:[ADDR:]PORT or udp:[ADDR:]PORT",
        ),
        (
            &["--pid", "0"],
            "invalid value '0' for '--pid <PID>': 0 is not in 1..=4294967295",
        ),
        (
            &["--unx", "a"],
            "unexpected argument '--unx' found; a similar argument exists: '--unix'",
        ),
        (
            &["--kind", "crahsed"],
            "invalid value 'crahsed' for '--kind <KIND>': unknown kind \"crahsed\", did you mean \"crashed\"?",
        ),
        (
            &["--for", "soon"],
            "invalid value 'soon' for '--for <DURATION>': \"soon\" is no duration (expected number at 0); \
             expected for example \"500ms\", \"10s\", \"1m\"",
        ),
        (
            &["--unix", ""],
            "invalid value '' for '--unix <PATH>': cannot make an empty path absolute",
        ),
    ] {
        assert_eq!(watch(args).unwrap_err(), expected);
    }
    let missing = Cli::try_parse_from(["probe", "replay"]).unwrap_err().to_string();
    assert_eq!(
        one_line(&missing),
        "the following required arguments were not provided: <FILE>"
    );
}

#[test]
fn lists_are_given_with_commas_or_again() {
    let w = watch(&[
        "--only",
        "event,finding",
        "--kind",
        "signal",
        "--kind",
        "crashed",
        "redis",
    ])
    .unwrap();
    assert_eq!(w.lines.only, [LineType::Event, LineType::Finding]);
    assert_eq!(w.lines.kind.len(), 2);
    assert_eq!(w.services, ["redis"]);
}
