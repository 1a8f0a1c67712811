use std::os::unix::net::UnixListener;

use super::*;
use crate::{
    clock::Nanos,
    event::{Holder, Socket, SocketId, SocketState},
    sources::{
        observer::Observer,
        testing::{Child, TempDir, alone},
    },
};

fn process(pid: u32, parent: u32, exe: &str, unit: Option<&str>) -> Process {
    let id = |pid: u32| ProcId {
        pid,
        start_ticks: u64::from(pid),
    };
    Process {
        id: id(pid),
        start: Nanos(u64::from(pid)),
        parent: (parent != 0).then(|| id(parent)),
        comm: "x".into(),
        uid: Some(0),
        exe: Some(exe.into()),
        exe_deleted: false,
        exe_id: Some(FileId {
            dev: 1,
            ino: exe.bytes().map(u64::from).sum(),
        }),
        argv: vec![exe.into(), pid.to_string()],
        unit: unit.map(str::to_owned),
    }
}

fn socket(address: &str, holders: &[u32]) -> Found {
    let address: Address = address.parse().unwrap();
    let ip = address.inet().map(|i| i.ip.unwrap_or("0.0.0.0".parse().unwrap()));
    let holders = holders
        .iter()
        .map(|pid| Holder {
            process: process(*pid, 0, "", None).id,
            fd: 3,
        })
        .collect::<Vec<_>>();
    let socket = Socket {
        id: SocketId(1),
        inode: 1,
        state: SocketState::Listening,
        file: None,
        ip,
        queue: 0,
        backlog: 0,
        head: None,
        holders_known: true,
        holders,
    };
    Found { address, socket }
}

fn listeners(processes: Vec<Process>, sockets: Vec<Found>) -> Listeners {
    Listeners {
        sockets,
        processes: processes.into_iter().map(|p| (p.id, p)).collect(),
        ..Listeners::default()
    }
}

fn host() -> Host {
    Host {
        own_pid: 999,
        ephemeral_ports: (32768, 60999),
        ..Host::default()
    }
}

fn strings(service: &Service) -> Vec<String> {
    service.listen.iter().map(ToString::to_string).collect()
}

#[test]
fn a_master_and_its_workers_are_one_service() {
    let listeners = listeners(
        vec![
            process(1, 0, "/usr/lib/systemd/systemd", None),
            process(10, 1, "/usr/sbin/nginx", Some("nginx.service")),
            process(11, 10, "/usr/sbin/nginx", Some("nginx.service")),
            process(12, 10, "/usr/sbin/nginx", Some("nginx.service")),
        ],
        vec![
            socket("tcp:80", &[1, 10, 11, 12]),
            socket("unix:/run/n.sock", &[11, 12]),
            socket("unix:/x", &[1]),
        ],
    );
    let mut host = host();
    host.pid_files = vec![("/run/other.pid".into(), 11), ("/run/nginx.pid".into(), 10)];
    let [nginx] = &discover(&listeners, &host).services[..] else {
        panic!()
    };
    assert_eq!(nginx.name, "nginx");
    assert_eq!(strings(nginx), ["unix:/run/n.sock", "tcp:80"]);
    assert_eq!(nginx.exe.as_deref(), Some("/usr/sbin/nginx"));
    assert_eq!(nginx.unit.as_deref(), Some("nginx.service"));
    assert_eq!(nginx.pid_file.as_deref(), Some("/run/nginx.pid"));
    assert!(!nginx.expected);
}

#[test]
fn a_service_is_called_what_it_was_started_as() {
    let named = |exe: &str, comm: &str, argv: &[&str]| {
        let mut process = process(50, 1, exe, None);
        process.comm = comm.into();
        process.argv = argv.iter().map(|&a| a.into()).collect();
        let found = discover(&listeners(vec![process], vec![socket("tcp:7", &[50])]), &host());
        found.services[0].name.clone()
    };
    let redis = named(
        "/usr/bin/redis-check-rdb",
        "redis-server",
        &["/usr/bin/redis-server 127.0.0.1:6379"],
    );
    assert_eq!(redis, "redis-server");
    let script = named(
        "/usr/bin/python3.11",
        "supervisord",
        &["/usr/bin/python3", "/usr/bin/supervisord"],
    );
    assert_eq!(script, "supervisord");
    let cut = named(
        "/usr/lib/multi",
        "a-name-that-is-",
        &["/usr/bin/a-name-that-is-long"],
    );
    assert_eq!(cut, "a-name-that-is-long");
    let title = named("/usr/sbin/nginx", "nginx", &["nginx: master process nginx"]);
    assert_eq!(title, "nginx");
    assert_eq!(
        named("/usr/bin/node", "MainThread", &["node", "server.js"]),
        "node"
    );
}

#[test]
fn what_two_services_share_selects_neither() {
    let listeners = listeners(
        vec![
            process(10, 1, "/usr/bin/redis", Some("session-1.scope")),
            process(11, 1, "/usr/bin/redis", Some("session-1.scope")),
            process(12, 1, "/usr/bin/python3.11", None),
            process(13, 12, "/usr/bin/python3.11", None),
            process(999, 1, "/usr/bin/probe", None),
        ],
        vec![
            socket("tcp:1", &[10]),
            socket("tcp:2", &[11]),
            socket("tcp:3", &[12]),
            socket("tcp:4", &[13]),
            socket("tcp:5", &[999]),
        ],
    );
    let services = discover(&listeners, &host()).services;
    let names: Vec<_> = services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["redis", "redis-2", "python3.11", "python3.11-2"]);
    assert!(services.iter().all(|s| s.exe.is_none() && s.unit.is_none()));
}

#[test]
fn ports_and_names_of_the_kernels_choice_are_nobodys_address() {
    let listeners = listeners(
        vec![process(10, 1, "/a", None), process(11, 1, "/b", None)],
        vec![
            socket("udp:40000", &[10]),
            socket("unix:@0003f", &[10]),
            socket("tcp:53", &[10]),
            socket("tcp:127.0.0.53:53", &[11]),
            socket("udp:68", &[]),
        ],
    );
    let services = discover(&listeners, &host()).services;
    assert_eq!(
        services.iter().map(strings).collect::<Vec<_>>(),
        [["tcp:0.0.0.0:53"], ["tcp:127.0.0.53:53"]]
    );
}

#[test]
fn a_shared_port_is_one_service() {
    let listeners = listeners(
        vec![process(10, 1, "/a", None), process(11, 1, "/a", None)],
        vec![socket("tcp:80", &[10]), socket("tcp:80", &[11])],
    );
    let [service] = &discover(&listeners, &host()).services[..] else {
        panic!()
    };
    assert_eq!(
        (service.max_instances, strings(service)),
        (2, vec!["tcp:80".to_owned()])
    );
}

#[test]
fn socket_files_without_a_socket_are_named() {
    let _alone = alone();
    let dir = TempDir::under(Path::new("/run"), "unheld");
    let (dead, live) = (dir.path().join("dead"), dir.path().join("live"));
    drop(UnixListener::bind(&dead).unwrap());
    let daemon = Child::holding(|| UnixListener::bind(&live).unwrap());
    std::os::unix::fs::symlink("dead", dir.path().join("link")).unwrap();
    fs::write(dir.path().join("a.pid"), daemon.pid().to_string()).unwrap();
    let listeners = Observer::new(None).unwrap().listening_everything().unwrap();
    let host = Host::read();
    let found = discover(&listeners, &host);
    assert!(found.unheld.contains(&dead) && !found.unheld.contains(&live));
    assert!(!found.unheld.contains(&dir.path().join("link")));
    let service = found
        .services
        .iter()
        .find(|s| s.listen.contains(&Address::Unix(live.clone())))
        .unwrap();
    assert_eq!(service.pid_file.as_deref(), dir.path().join("a.pid").to_str());
    assert!(host.own_pid == std::process::id());
}

#[test]
fn a_socket_file_that_nobody_may_open_is_no_service_s() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new("placeholder");
    for (name, mode) in [("held", 0o600), ("inaccessible", 0)] {
        let path = dir.path().join(name);
        drop(UnixListener::bind(&path).unwrap());
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut walk = Walk::new();
    walk.directory(dir.path(), 0);
    assert_eq!(walk.sockets, [dir.path().join("held")]);
}
