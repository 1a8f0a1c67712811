//! A `dbus-daemon` and a peer of our own with systemd's interface; the real one is for the virtual machines.

mod peer;

use std::{path::PathBuf, time::Duration};

use super::*;
use crate::{
    config::{Config, Heartbeat, Service},
    event::{ProcId, UnitJob},
};
use peer::{Kind, Systemd, TestBus, UNIT, UnitNow};

const LIMIT: Duration = Duration::from_secs(20);

fn config(change: impl FnOnce(&mut Service)) -> Config {
    let mut service = Service::named("d");
    service.unit = Some(UNIT.into());
    change(&mut service);
    Config {
        services: vec![service],
        ..Config::default()
    }
}

/// Knows this process only.
fn read(pid: u32) -> Option<Process> {
    (pid == std::process::id()).then(|| Process {
        id: ProcId { pid, start_ticks: 7 },
        start: Nanos(70_000_000),
        parent: None,
        comm: "test".into(),
        uid: None,
        exe: None,
        exe_deleted: false,
        exe_id: None,
        argv: Vec::new(),
        unit: None,
    })
}

fn follow(bus: &TestBus) -> Units {
    let connected = Units::connect(&config(|_| {}), Some(&bus.address()), read);
    assert!(connected.cannot_see.is_empty(), "{:?}", connected.cannot_see);
    connected.units.unwrap()
}

/// The next event that is as wanted. Looks that come before the change has reached them are passed over.
async fn next(units: &mut Units, wanted: impl Fn(&What) -> bool) -> Event {
    let mut passed = Vec::new();
    let search = async {
        loop {
            let event = units.next().await;
            if wanted(&event.what) {
                return event;
            }
            passed.push(event);
        }
    };
    match tokio::time::timeout(LIMIT, search).await {
        Ok(event) => event,
        Err(_) => panic!("not told within {LIMIT:?}, but {passed:#?}"),
    }
}

async fn state(units: &mut Units, wanted: impl Fn(&UnitState) -> bool) -> UnitState {
    let event = next(units, |what| matches!(what, What::Unit(s) if wanted(s))).await;
    match event.what {
        What::Unit(state) => state,
        other => panic!("{other:?}"),
    }
}

async fn first(units: &mut Units) -> UnitState {
    state(units, |_| true).await
}

#[tokio::test]
async fn how_the_unit_is_comes_first() {
    let Some(bus) = TestBus::start() else { return };
    let _systemd = Systemd::start(&bus, UnitNow::running()).await;
    let mut units = follow(&bus);
    let before = clock::now();
    let event = next(&mut units, |_| true).await;
    assert!(event.at <= clock::now() && event.at + LIMIT > before);
    assert_eq!(event.time_source, TimeSource::Observed);
    let pid = std::process::id();
    let expected = UnitState {
        unit: UNIT.into(),
        main_pid: Some(pid),
        exec_main_pid: Some(pid),
        process: read(pid),
        active_state: "active".into(),
        sub_state: "running".into(),
        result: "success".into(),
        ..UnitState::default()
    };
    assert_eq!(event.what, What::Unit(expected));
}

/// systemd names jobs by the unit's own name, also where an alias was declared.
#[tokio::test]
async fn jobs_come_and_go() {
    let Some(bus) = TestBus::start() else { return };
    let systemd = Systemd::start(&bus, UnitNow::running()).await;
    let mut units = follow(&bus);
    assert_eq!(first(&mut units).await.job, None);
    systemd.job_new("stop").await;
    let job = state(&mut units, |s| s.job.is_some()).await.job;
    assert_eq!(
        job,
        Some(UnitJob {
            id: 812,
            kind: "stop".into()
        })
    );
    systemd.job_removed().await;
    state(&mut units, |s| s.job.is_none()).await;
}

#[tokio::test]
async fn changes_of_properties_are_read_anew() {
    let Some(bus) = TestBus::start() else { return };
    let systemd = Systemd::start(&bus, UnitNow::running()).await;
    let mut units = follow(&bus);
    first(&mut units).await;
    systemd
        .set(|u| {
            *u = UnitNow {
                active_state: "activating",
                sub_state: "auto-restart",
                main_pid: 0,
                result: "signal",
                n_restarts: 1,
                ..UnitNow::running()
            }
        })
        .await;
    let s = state(&mut units, |s| s.n_restarts == 1).await;
    assert_eq!(
        (s.main_pid, s.sub_state.as_str(), s.result.as_str()),
        (None, "auto-restart", "signal")
    );
    systemd
        .set(|u| (u.active_state, u.result) = ("failed", "start-limit-hit"))
        .await;
    state(&mut units, |s| {
        s.active_state == "failed" && s.result == "start-limit-hit"
    })
    .await;
}

/// A main process whose pid names nobody any more when it is looked at.
#[tokio::test]
async fn a_main_process_that_has_gone_is_only_a_number() {
    let Some(bus) = TestBus::start() else { return };
    let _systemd = Systemd::start(
        &bus,
        UnitNow {
            main_pid: 1 << 22,
            ..UnitNow::running()
        },
    )
    .await;
    let s = first(&mut follow(&bus)).await;
    assert_eq!((s.main_pid, s.process), (Some(1 << 22), None));
}

#[tokio::test]
async fn after_a_reload_and_with_a_new_unit_everything_is_looked_at() {
    let Some(bus) = TestBus::start() else { return };
    let systemd = Systemd::start(&bus, UnitNow::running()).await;
    let mut units = follow(&bus);
    first(&mut units).await;
    systemd.set_silently(|u| u.n_restarts = 3);
    systemd.reload().await;
    state(&mut units, |s| s.n_restarts == 3).await;
    systemd.set_silently(|u| u.n_restarts = 4);
    systemd.unit_new().await;
    state(&mut units, |s| s.n_restarts == 4).await;
}

#[tokio::test]
async fn systemd_that_leaves_is_out_of_sight_until_it_returns() {
    let Some(bus) = TestBus::start() else { return };
    let systemd = Systemd::start(&bus, UnitNow::running()).await;
    let mut units = follow(&bus);
    first(&mut units).await;
    systemd.leave().await;
    let lost = state(&mut units, |s| s.error.is_some()).await;
    assert_eq!((lost.main_pid, lost.active_state.as_str()), (None, ""));
    let now = UnitNow {
        n_restarts: 9,
        ..UnitNow::running()
    };
    let systemd = Systemd::start(&bus, now).await;
    let s = state(&mut units, |s| s.error.is_none()).await;
    assert_eq!(s.n_restarts, 9);
    // It is followed again, not only looked at.
    systemd.set(|u| u.n_restarts = 10).await;
    state(&mut units, |s| s.n_restarts == 10).await;
}

#[tokio::test]
async fn a_bus_that_dies_is_connected_to_again() {
    let Some(mut bus) = TestBus::start() else {
        return;
    };
    let _systemd = Systemd::start(&bus, UnitNow::running()).await;
    let mut units = follow(&bus);
    first(&mut units).await;
    bus.kill();
    state(&mut units, |s| s.error.is_some()).await;
    bus.run();
    let _systemd = Systemd::start(&bus, UnitNow::running()).await;
    state(&mut units, |s| s.error.is_none() && s.active_state == "active").await;
}

#[tokio::test]
async fn a_bus_that_comes_late_is_waited_for() {
    let Some(mut bus) = TestBus::start() else {
        return;
    };
    bus.kill();
    let mut units = follow(&bus);
    let lost = first(&mut units).await;
    assert!(lost.error.is_some(), "{lost:?}");
    bus.run();
    let _systemd = Systemd::start(&bus, UnitNow::running()).await;
    state(&mut units, |s| s.error.is_none()).await;
}

/// Whatever others send, what counts is what systemd answers.
#[tokio::test]
async fn a_strangers_signals_change_nothing() {
    let Some(bus) = TestBus::start() else { return };
    let systemd = Systemd::start(&bus, UnitNow::running()).await;
    let mut units = follow(&bus);
    first(&mut units).await;
    let stranger = zbus::connection::Builder::address(bus.address().as_str())
        .build()
        .await
        .unwrap();
    let path = "/org/freedesktop/systemd1/unit/real_2eservice";
    // To every connection by its own name, so that no match rule is in the way.
    for n in 0..8 {
        let to = format!(":1.{n}");
        for (path, interface, name) in [
            (path, "org.freedesktop.DBus.Properties", "PropertiesChanged"),
            (
                "/org/freedesktop/DBus",
                "org.freedesktop.systemd1.Manager",
                "JobNew",
            ),
        ] {
            let body = (812_u32, "failed");
            stranger
                .emit_signal(Some(to.as_str()), path, interface, name, &body)
                .await
                .unwrap();
        }
    }
    systemd.set(|u| u.n_restarts = 1).await;
    let event = next(&mut units, |_| true).await;
    assert!(
        matches!(&event.what, What::Unit(s) if s.n_restarts == 1 && s.active_state == "active"),
        "{event:?}"
    );
}

#[tokio::test]
async fn systemd_that_does_not_answer_is_not_waited_for_without_end() {
    let Some(bus) = TestBus::start() else { return };
    let _systemd = Systemd::start_as(&bus, UnitNow::running(), Kind::Stuck).await;
    let lost = first(&mut follow(&bus)).await;
    assert!(lost.error.is_some(), "{lost:?}");
}

#[tokio::test]
async fn a_unit_that_is_no_service_has_no_main_process() {
    let Some(bus) = TestBus::start() else { return };
    let now = UnitNow {
        sub_state: "listening",
        ..UnitNow::running()
    };
    let _systemd = Systemd::start_as(&bus, now, Kind::Socket).await;
    let s = first(&mut follow(&bus)).await;
    assert_eq!(
        (s.error, s.main_pid, s.sub_state.as_str(), s.result.as_str()),
        (None, None, "listening", "")
    );
}

#[tokio::test]
async fn a_name_that_systemd_refuses_hides_no_other_unit() {
    let Some(bus) = TestBus::start() else { return };
    let _systemd = Systemd::start(&bus, UnitNow::running()).await;
    let mut config = config(|_| {});
    config.services.push(Service {
        unit: Some("bad@.service".into()),
        ..Service::named("bad")
    });
    let mut units = Units::connect(&config, Some(&bus.address()), read).units.unwrap();
    let bad = state(&mut units, |s| s.unit == "bad@.service").await;
    assert!(
        bad.error.as_ref().is_some_and(|e| e.contains("is not valid")),
        "{bad:?}"
    );
    let good = state(&mut units, |s| s.unit == UNIT).await;
    assert_eq!(good.error, None);
}

#[tokio::test]
async fn the_watchdogs_stamp_is_a_heartbeat() {
    let Some(bus) = TestBus::start() else { return };
    let stamp = |ago: Duration| {
        let boot = clock::now();
        let offset = boot.since(Nanos::ZERO) - Duration::from_nanos(clock::from_monotonic(Duration::ZERO).0);
        u64::try_from((offset - ago).as_micros()).unwrap()
    };
    let watchdog = stamp(Duration::from_secs(2));
    let systemd = Systemd::start(
        &bus,
        UnitNow {
            watchdog,
            ..UnitNow::running()
        },
    )
    .await;
    let config = config(|s| {
        let mut h: Heartbeat = toml::from_str("notify = true").unwrap();
        h.stale_after = Duration::from_millis(10);
        s.heartbeat = Some(h);
    });
    let mut units = Units::connect(&config, Some(&bus.address()), read).units.unwrap();
    let beat_of = |event: Event| match event.what {
        What::Heartbeat {
            service,
            beat: Some(beat),
        } => {
            assert_eq!(service, "d");
            beat
        }
        other => panic!("{other:?}"),
    };
    let is_beat = |what: &What| matches!(what, What::Heartbeat { .. });
    let one = beat_of(next(&mut units, is_beat).await);
    let ago = clock::now().since(one);
    assert!(
        (Duration::from_secs(2)..LIMIT).contains(&ago),
        "two seconds ago, told as {ago:?}"
    );
    // No signal tells of it.
    systemd.set_silently(|u| u.watchdog += 1_500_000);
    let two = beat_of(next(&mut units, is_beat).await);
    let between = two.since(one);
    let difference = between.abs_diff(Duration::from_millis(1_500));
    assert!(difference < Duration::from_millis(1), "{between:?}");
}

#[tokio::test]
async fn without_a_unit_nobody_is_asked() {
    let connected = Units::connect(&config(|s| s.unit = None), None, read);
    assert!(connected.units.is_none() && connected.cannot_see.is_empty());
}

#[tokio::test]
async fn an_unknown_user_is_said() {
    let connected = Units::connect(&config(|s| s.user = Some("no such user".into())), None, read);
    assert!(connected.units.is_none());
    assert_eq!(connected.cannot_see["d"], r#"no user "no such user""#);
}

#[test]
fn an_absent_bus_is_said_and_a_users_may_come() {
    let user = Bus::User {
        name: "alice".into(),
        uid: u32::MAX - 1,
    };
    let why = user.absent().unwrap();
    assert!(
        why.starts_with("units of alice: ") && why.contains("/run/user/4294967294/bus"),
        "{why}"
    );
    assert!(user.may_come() && !Bus::System.may_come());
}

/// A user's bus asks the kernel who connects.
#[test]
fn a_users_bus_sees_that_user() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can be another user");
        return;
    }
    let directory: PathBuf = std::env::temp_dir().join(format!("probe-user-bus-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let listener = peer::listener(&directory);
    let nobody = 65_534;
    let stream = bus::stream_as(nobody, &directory.join("bus")).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let who = nix::sys::socket::getsockopt(&accepted, nix::sys::socket::sockopt::PeerCredentials).unwrap();
    assert_eq!(who.uid(), nobody);
    // Only the thread that connected was somebody else.
    assert!(rustix::process::geteuid().is_root());
    drop(stream);
    std::fs::remove_dir_all(&directory).unwrap();
}
