//! Targets that could only be a mistake.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixStream},
    process::Command,
};

use probe_tests::{Proc, run};

use crate::{Reclaimed, Site, leave_stale};

#[test]
fn a_path_that_is_no_socket() {
    let site = Site::new("");
    fs::write(&site.socket, "keep").unwrap();
    let reclaimed = site.reclaim(&[]);
    reclaimed
        .is_blocked_by(&["regular file"])
        .removed(&[])
        .says("refuse", "regular file");
    assert_eq!(fs::read_to_string(&site.socket).unwrap(), "keep");

    fs::remove_file(&site.socket).unwrap();
    let target = site.sandbox.path("target.sock");
    leave_stale(&target);
    symlink(&target, &site.socket).unwrap();
    site.reclaim(&[]).is_blocked_by(&["symbolic link"]).removed(&[]);
    assert!(target.exists() && site.socket.is_symlink());
}

#[test]
fn a_pid_file_that_is_none() {
    let site = Site::new("");
    let target = site.sandbox.write("target", "4194304");
    symlink(&target, &site.pid_file).unwrap();
    site.reclaim(&[]).removed(&[]).says("refuse", "symbolic link");
    assert!(target.exists() && site.pid_file.is_symlink());
    fs::remove_file(&site.pid_file).unwrap();
    fs::create_dir(&site.pid_file).unwrap();
    site.reclaim(&[])
        .removed(&[])
        .says("refuse", "not a regular file");
    fs::remove_dir(&site.pid_file).unwrap();
    let made = run(Command::new("mkfifo").arg(&site.pid_file));
    assert_eq!(made.code, Some(0), "{made:?}");
    site.reclaim(&[])
        .removed(&[])
        .says("refuse", "not a regular file");
}

#[test]
fn a_directory_of_another_owner_that_others_may_write_to() {
    let site = Site::new("");
    leave_stale(&site.socket);
    fs::write(&site.pid_file, "4194304").unwrap();
    let directory = site.socket.parent().unwrap();
    let set = |owner: u32, mode: u32| {
        std::os::unix::fs::chown(directory, Some(owner), Some(owner)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(directory, mode).unwrap();
    };

    for mode in [0o777, 0o1777, 0o775] {
        set(65534, mode);
        let reclaimed = site.reclaim(&[]);
        reclaimed.is_blocked_by(&["was not removed"]).removed(&[]);
        reclaimed.says("refuse", "its directory belongs to user 65534");
    }
    assert!(site.socket.exists() && site.pid_file.exists());

    // Its own, and nobody else may write.
    set(65534, 0o755);
    site.reclaim(&[])
        .is_clear()
        .removed(&[&site.socket, &site.pid_file]);
}

#[test]
fn a_link_on_the_way_that_somebody_else_planted() {
    let site = Site::new("");
    let (run, real) = (site.socket.parent().unwrap(), site.sandbox.path("elsewhere"));
    fs::rename(run, &real).unwrap();
    symlink(&real, run).unwrap();
    leave_stale(&real.join("annad.sock"));
    std::os::unix::fs::lchown(run, Some(65534), Some(65534)).unwrap();

    let reclaimed = site.reclaim(&[]);
    reclaimed.removed(&[]).says("refuse", "belongs to user 65534");
    assert!(real.join("annad.sock").exists());

    // Root's own links are how /var/run came to be /run.
    std::os::unix::fs::lchown(run, Some(0), Some(0)).unwrap();
    site.reclaim(&[]).is_clear().removed(&[&site.socket]);
    assert!(!real.join("annad.sock").exists());
}

#[test]
fn init_kernel_threads_and_ancestors() {
    let site = Site::without_selector("singleton = true");
    for (pid, why) in [
        (1, "pid 1 is no service"),
        (2, "kernel thread"),
        (std::process::id(), "it started this process"),
    ] {
        fs::write(&site.pid_file, pid.to_string()).unwrap();
        site.reclaim(&[]).ended(0).says("refuse", why);
    }
}

#[test]
fn the_one_that_starts_the_service_and_looks_like_it() {
    // An agent that reclaims at its own start, as scripts do.
    let site = Site::new("");
    let agent = site.sandbox.path("agent.sh");
    let config = fs::read_to_string(&site.config).unwrap();
    let text = config.replace(
        &format!("exe = {:?}", site.exe),
        &format!("script = {agent:?}\nsingleton = true"),
    );
    fs::write(&site.config, text).unwrap();
    let probe = probe_tests::probe_binary();
    let script = format!(
        "#!/bin/bash\nif [ \"$1\" = reclaim ]; then {} reclaim --json --config {} annad; exit $?; fi\nread\n",
        probe.display(),
        site.config.display()
    );
    site.sandbox.write("agent.sh", &script);
    let spawn = |arg: &str| {
        let mut command = Command::new("/bin/bash");
        command.arg(&agent).arg(arg);
        command
    };
    let old = Proc::spawn(spawn("serve").stdin(std::process::Stdio::piped()));
    probe_tests::until("the old one reads", || probe_tests::state(old.pid()) == Some('S'));

    let reclaimed = Reclaimed::of(run(&mut spawn("reclaim")));

    reclaimed.is_clear().ended(1);
    assert!(!old.is_alive());
}

#[test]
fn another_unit_of_this_name() {
    let unit = crate::ending::unit("user");
    let Some(group) = probe_tests::ControlGroup::new(&format!("user@1000.service/{unit}")) else {
        return;
    };
    let site = Site::new(&format!("unit = {unit:?}\nsingleton = true"));
    let stranger = Proc::spawn(Command::new("sleep").arg("1000"));
    group.add(stranger.pid());
    site.reclaim(&[]).is_clear().ended(0);
    assert!(stranger.is_alive());
    drop(stranger);
    leave_stale(&site.socket);
    UnixStream::connect(&site.socket).unwrap_err();
}
