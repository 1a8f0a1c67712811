use std::time::Duration;

use super::*;
use crate::config::Service;

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("probe-config-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("probe.d")).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn parse_one(text: &str) -> Result<Config, String> {
    let (config, problems) = parse(&[("p.toml".into(), text.to_owned())], true);
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(ConfigError { problems }.to_string())
    }
}

#[test]
fn every_key_of_the_manual_is_accepted_and_survives_a_round_trip() {
    let config = parse_one(include_str!("design.toml")).unwrap();
    assert_eq!(config.services.len(), 5);
    assert_eq!(config.hooks[1].after.count, 3);
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
    assert_eq!(
        serde_json::to_string(&serde_json::from_str::<Config>(&json).unwrap()).unwrap(),
        json
    );
    let toml = toml::to_string_pretty(&config).unwrap();
    assert_eq!(parse_one(&toml).unwrap(), config, "{toml}");
}

#[test]
fn the_smallest_service_has_every_default() {
    let config = parse_one("service = [{ name = 'a', listen = ['tcp:80'] }]").unwrap();
    let expected = Service {
        listen: vec!["tcp:80".parse().unwrap()],
        ..Service::named("a")
    };
    assert_eq!(config.services, [expected]);
    assert!(
        !config.services[0].singleton,
        "nothing may be killed that nobody spoke of"
    );
    assert_eq!(parse_one("").unwrap(), Config::default());
}

#[test]
fn errors_say_where_and_what_would_be_right() {
    let table: &[(&str, &str)] = &[
        // Syntax.
        (
            "[[service]]\nname = \"a\nlisten = []\n",
            "p.toml:2:10: invalid basic string, expected `\"`\n 2 | name = \"a\n   |          ^",
        ),
        (
            "[probe]\nsettle_every = \"1s\"\nsettle_every = \"2s\"\n",
            "p.toml:3:1: duplicate key\n 3 | settle_every = \"2s\"\n   | ^^^^^^^^^^^^",
        ),
        // Unknown keys, on every level.
        (
            "[[servce]]\nname = \"a\"\n",
            "p.toml:1:3: unknown key `servce`, did you mean `service`?\n 1 | [[servce]]\n   |   ^^^^^^",
        ),
        (
            "[probe]\nsettle-every = \"1s\"\n",
            "p.toml:2:1: unknown key `settle-every`, did you mean `settle_every`?\n 2 | settle-every = \"1s\"\n   | ^^^^^^^^^^^^",
        ),
        (
            "[probe]\n\tretention = { sise = \"1MiB\" }\n",
            "p.toml:2:16: unknown key `sise`, did you mean `size`?\n 2 | \tretention = { sise = \"1MiB\" }\n   | \t              ^^^^",
        ),
        (
            "[[service]]\nname = \"a\"\nlisten = [\"tcp:80\"]\n[service.signals]\nhandeld = []\n",
            "p.toml:5:1: unknown key `handeld`, did you mean `handled`?\n 5 | handeld = []\n   | ^^^^^^^",
        ),
        (
            "[[service]]\nname = \"é\"\nlisten = [\"tcp:80\"]\nheartbeat = { notify = true, stale_afer = \"1s\" }\n",
            "p.toml:4:30: unknown key `stale_afer`, did you mean `stale_after`?\n 4 | heartbeat = { notify = true, stale_afer = \"1s\" }\n   |                              ^^^^^^^^^^",
        ),
        (
            "[[hook]]\nwhen = 1\nseverity = \"critical\"\nexec = [\"/bin/true\"]\n",
            "p.toml:2:1: unknown key `when`, expected one of name, on, severity, gave_up, services, states, after, group_wait, at_most, exec, user, timeout, webhook, format, retry_for, resend_every, journal\n 2 | when = 1\n   | ^^^^",
        ),
        // Values.
        (
            "[[service]]\nname = \"a\"\nlisten = [\"unix:/a\", \"tcp:0\"]\n",
            "p.toml:3:22: \"tcp:0\" is no address: \"0\" is no port from 1 to 65535; expected unix:/path, unix:@name, tcp:[ADDR:]PORT or udp:[ADDR:]PORT\n 3 | listen = [\"unix:/a\", \"tcp:0\"]\n   |                      ^^^^^^^",
        ),
        (
            "[probe]\nsettle_every = 5\n",
            "p.toml:2:16: invalid type: integer `5`, expected a duration with its unit in quotes, for example \"10s\"\n 2 | settle_every = 5\n   |                ^",
        ),
        (
            "[probe]\ntier = \"fentri\"\n",
            "p.toml:2:8: unknown value `fentri`, did you mean `fentry`?\n 2 | tier = \"fentri\"\n   |        ^^^^^^^^",
        ),
        (
            "[[hook]]\non = [\"stale-socket\", \"stale-pidfile\"]\nexec = [\"/bin/true\"]\n",
            "p.toml:2:23: unknown value `stale-pidfile`, did you mean `stale-pid-file`?\n 2 | on = [\"stale-socket\", \"stale-pidfile\"]\n   |                       ^^^^^^^^^^^^^^^",
        ),
        (
            "[[service]]\nlisten = [\"tcp:80\"]\n",
            "p.toml:1:1: the key `name` is missing\n 1 | [[service]]\n   | ^^^^^^^^^^^",
        ),
        // Meaning.
        (
            "[[service]]\nname = \"a\"\nargument = \"-x\"\n",
            "p.toml:1:1: service \"a\" declares nothing to recognise it by; give it `listen`, `pid_file`, `exe` or `unit`\n 1 | [[service]]\n   | ^^^^^^^^^^^",
        ),
        (
            "[[service]]\nname = \"a\"\nlisten = [\"tcp:80\"]\n[[service]]\nname = \"a\"\nlisten = [\"tcp:81\"]\n",
            "p.toml:5:1: another service is named \"a\" too\n 5 | name = \"a\"\n   | ^^^^",
        ),
        (
            "[[service]]\nname = \"a\"\nlisten = [\"tcp:80\"]\n[[service]]\nname = \"b\"\nlisten = [\"tcp:81\", \"tcp:80\"]\n",
            "p.toml:6:21: tcp:80 is declared by service \"a\" too\n 6 | listen = [\"tcp:81\", \"tcp:80\"]\n   |                     ^^^^^^^^",
        ),
        (
            "[[service]]\nname = \"a\"\nlisten = [\"unix:/a\", \"unix://a\"]\n",
            "p.toml:3:22: unix:/a is declared twice\n 3 | listen = [\"unix:/a\", \"unix://a\"]\n   |                      ^^^^^^^^^^",
        ),
        (
            "[[service]]\nname = \"a\"\nexe = \"/bin/d\"\nunit = \"a.service\"\n[[service]]\nname = \"b\"\nexe = \"/bin/d\"\n",
            "p.toml:7:1: services \"a\" and \"b\" share /bin/d; \"b\" needs a `unit`, `script`, `argument` or `listen` that tells them apart\n 7 | exe = \"/bin/d\"\n   | ^^^",
        ),
        (
            "[[service]]\nname = \"a\"\npid_file = \"run/a.pid\"\n",
            "p.toml:3:1: `pid_file` must be an absolute path, \"run/a.pid\" is none\n 3 | pid_file = \"run/a.pid\"\n   | ^^^^^^^^",
        ),
        (
            "[[service]]\nname = \"a\"\nlisten = [\"tcp:80\"]\nready_within = \"0s\"\n",
            "p.toml:4:1: `ready_within` must be longer than zero\n 4 | ready_within = \"0s\"\n   | ^^^^^^^^^^^^",
        ),
        (
            "[limits]\ngit = \"0s\"\n",
            "p.toml:2:1: `git` must be longer than zero\n 2 | git = \"0s\"\n   | ^^^",
        ),
        (
            "[[service]]\nname = \"a\"\nlisten = [\"tcp:80\"]\nheartbeat = { file = \"/f\", log = \"/l\" }\n",
            "p.toml:4:28: a heartbeat has one way, this has `file` and `log`\n 4 | heartbeat = { file = \"/f\", log = \"/l\" }\n   |                            ^^^",
        ),
        (
            "[[service]]\nname = \"a\"\nlisten = [\"tcp:80\"]\nsignals = { handled = [\"HUP\", \"KILL\"] }\n",
            "p.toml:4:31: no process can handle SIGKILL\n 4 | signals = { handled = [\"HUP\", \"KILL\"] }\n   |                               ^^^^^^",
        ),
        (
            "[[service]]\nname = \"annad\"\nlisten = [\"tcp:80\"]\n[[hook]]\nseverity = \"critical\"\nservices = [\"anad\"]\nexec = [\"/x\"]\n",
            "p.toml:6:13: no service is named \"anad\", did you mean \"annad\"?\n 6 | services = [\"anad\"]\n   |             ^^^^^^",
        ),
        (
            "[[hook]]\nseverity = \"critical\"\nwebhook = \"https://example.org/x\"\n",
            "p.toml:3:1: probe speaks http:// only; for \"https://example.org/x\" let a local proxy speak TLS, or use `exec = [\"curl\", \"--fail\", \"--json\", \"@-\", \"https://…\"]`\n 3 | webhook = \"https://example.org/x\"\n   | ^^^^^^^",
        ),
        (
            "[[hook]]\nseverity = \"critical\"\nexec = [\"/bin/page\", \"{servce}\"]\n",
            "p.toml:3:22: unknown placeholder {servce}, did you mean {service}?\n 3 | exec = [\"/bin/page\", \"{servce}\"]\n   |                      ^^^^^^^^^^",
        ),
        (
            "[[hook]]\nseverity = \"critical\"\nexec = [\"/bin/{kind}\"]\n",
            "p.toml:3:9: no value of a finding may choose the program that runs\n 3 | exec = [\"/bin/{kind}\"]\n   |         ^^^^^^^^^^^^^",
        ),
        (
            "[[hook]]\nname = \"hook-2\"\nseverity = \"critical\"\nexec = [\"/bin/x\"]\n[[hook]]\ngave_up = true\njournal = true\n",
            "p.toml:5:1: another hook is named \"hook-2\" too\n 5 | [[hook]]\n   | ^^^^^^^^",
        ),
        (
            "[[hook]]\nexec = [\"/bin/x\"]\njournal = true\n",
            "p.toml:1:1: a hook needs `on` with kinds of findings, `severity`, or `gave_up = true`\n 1 | [[hook]]\n   | ^^^^^^^^\np.toml:3:1: a hook does one thing, this has both `exec` and `journal`\n 3 | journal = true\n   | ^^^^^^^",
        ),
        (
            "[[service]]\nname = \"a\"\nlisten = [\"tcp:80\"]\nsingleton = true\nmax_instances = 2\n",
            "p.toml:4:1: `singleton` means `max_instances = 1`, not 2\n 4 | singleton = true\n   | ^^^^^^^^^",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(parse_one(text).unwrap_err(), *expected, "\n{text}");
    }
}

#[test]
fn all_problems_are_told_in_the_order_of_the_file() {
    let text = "[probe]\nsettle_every = \"soon\"\nsoket = \"/x\"\nstate_dir = \"rel\"\n\
                [[service]]\nlisten = [\"tcp:x\", \"tcp:y\"]\n\
                [[service]]\nname = \"b\"\nlistn = []\nexe = \"d\"\nmax_instances = \"1\"\n";
    let error = parse_one(text).unwrap_err();
    let heads: Vec<&str> = error.lines().filter(|l| l.starts_with("p.toml:")).collect();
    let starts = [
        "p.toml:2:16: \"soon\" is no duration",
        "p.toml:3:1: unknown key `soket`, did you mean `socket`?",
        "p.toml:4:1: `state_dir` must be an absolute path",
        "p.toml:5:1: the key `name` is missing",
        "p.toml:6:11: \"tcp:x\" is no address",
        "p.toml:6:20: \"tcp:y\" is no address",
        "p.toml:9:1: unknown key `listn`, did you mean `listen`?",
        "p.toml:10:1: `exe` must be an absolute path",
        "p.toml:11:17: invalid type: string \"1\", expected u32",
    ];
    assert_eq!(heads.len(), starts.len(), "{error}");
    for (head, start) in heads.iter().zip(starts) {
        assert!(head.starts_with(start), "{head}\nexpected {start}");
    }
}

#[test]
fn no_file_is_no_error_and_no_configuration() {
    let dir = Dir::new("none");
    assert_eq!(load(None, &dir.0), Ok(None));
    assert_eq!(load(None, &dir.0.join("missing")), Ok(None));
    let named = dir.0.join("named.toml");
    let error = load(Some(&named), &dir.0).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "{}: cannot open: No such file or directory (os error 2)",
            named.display()
        )
    );
}

#[test]
fn drop_ins_add_up_by_name() {
    let dir = Dir::new("drop");
    let main = dir.file(
        "probe.toml",
        "[probe]\nsettle_every = \"5s\"\nsocket = \"/run/s\"\n[limits]\ngit = \"1s\"\n",
    );
    let two = dir.file(
        "probe.d/20.toml",
        "[[service]]\nname = \"b\"\nlisten = [\"tcp:80\"]\n",
    );
    let one = dir.file(
        "probe.d/10.toml",
        "[probe]\nsettle_every = \"7s\"\n[[service]]\nname = \"a\"\nlisten = [\"tcp:81\"]\n",
    );
    dir.file("probe.d/.#10.toml", "not looked at");
    dir.file("probe.d/10.toml.bak", "not looked at");
    let loaded = load(None, &dir.0).unwrap().unwrap();
    assert_eq!(loaded.files, [main, one, two.clone()]);
    assert_eq!(loaded.config.probe.settle_every, Duration::from_secs(7));
    assert_eq!(loaded.config.probe.socket, "/run/s");
    assert_eq!(loaded.config.limits["git"].0, Duration::from_secs(1));
    let names: Vec<_> = loaded.config.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);

    // What contradicts another file is told where the second one says it.
    let three = dir.file(
        "probe.d/30.toml",
        "\n[[service]]\nname = \"c\"\nlisten = [\"tcp:80\"]\n",
    );
    let four = dir.file("probe.d/40.toml", "[probe]\nsocket = \"rel\"\n");
    let error = load(None, &dir.0).unwrap_err();
    let heads: Vec<_> = error
        .problems
        .iter()
        .map(|p| (&p.path, p.place.as_ref().unwrap().line))
        .collect();
    assert_eq!(heads, [(&three, 4), (&four, 2)]);
}

#[test]
fn a_file_that_cannot_be_read_hides_nothing_in_the_others() {
    let dir = Dir::new("unreadable");
    dir.file(
        "probe.toml",
        "[[hook]]\nseverity = \"critical\"\nexec = [\"/x\"]\nservices = [\"in-the-other-file\"]\n",
    );
    let twisted = dir.file("probe.d/1.toml", b"[probe]\n# caf\xe9\n");
    let typo = dir.file("probe.d/2.toml", "[prob]\n");
    let error = load(None, &dir.0).unwrap_err();
    let told: Vec<_> = error
        .problems
        .iter()
        .map(|p| (&p.path, p.message.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (&twisted, "not UTF-8 from here on"),
            (&typo, "unknown key `prob`, did you mean `probe`?")
        ]
    );
    assert_eq!(
        error.problems[0].place.as_ref().map(|p| (p.line, p.column)),
        Some((2, 6))
    );
}

#[test]
fn what_is_no_file_of_a_sensible_size_is_refused() {
    let dir = Dir::new("size");
    let message = |path: &Path| load(Some(path), &dir.0).unwrap_err().problems[0].message.clone();
    let fifo = dir.0.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert_eq!(message(&fifo), "not a regular file");
    assert_eq!(message(&dir.0), "not a regular file");
    assert_eq!(message(Path::new("/dev/zero")), "not a regular file");
    let long = dir.file("long", vec![b'#'; MAX_BYTES as usize + 1]);
    assert!(message(&long).starts_with("longer than 1048576 bytes"));
    dir.file("long", vec![b'#'; MAX_BYTES as usize]);
    assert_eq!(
        load(Some(&long), &dir.0).unwrap().unwrap().config,
        Config::default()
    );
}

#[test]
fn a_list_of_thousands_is_searched_quickly() {
    let addresses: Vec<String> = (0..20_000)
        .map(|i| format!("\"tcp:{}\"", 1 + i % 70_000))
        .collect();
    let text = format!(
        "[[service]]\nname = \"a\"\nlisten = [\n{},\n\"tcp:0\"]\n",
        addresses.join(",\n")
    );
    let error = parse_one(&text).unwrap_err();
    assert!(
        error.starts_with("p.toml:20004:1: \"tcp:0\" is no address"),
        "{error}"
    );
}

#[test]
fn no_damage_to_a_file_is_more_than_an_error() {
    let text = include_str!("design.toml");
    for at in (0..text.len()).step_by(11) {
        let (before, after) = text.split_at(at);
        for damaged in [
            before.to_owned(),
            format!("{before}{}", &after[1..]),
            format!("{before}[{after}"),
            format!("{before}\u{e9}{after}"),
        ] {
            if let Err(error) = parse_one(&damaged) {
                assert!(error.starts_with("p.toml:"), "{error}");
            }
        }
    }
}

#[test]
fn the_example_of_the_readme_is_a_configuration() {
    let readme = include_str!("../../../../README.md");
    let (_, rest) = readme.split_once("```toml\n").unwrap();
    let config = parse_one(rest.split_once("```").unwrap().0).unwrap();
    assert_eq!(config.services[0].name, "redis");
}
