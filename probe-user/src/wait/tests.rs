use serde_json::json;

use super::*;

fn service(more: serde_json::Value) -> ServiceStatus {
    let mut s = json!({
        "service": "annad", "verdict": "ok", "expected": true,
        "main": {"pid": 812, "start_ns": 1, "exe": null, "comm": "annad", "uid": 0, "unit": null, "parent": null},
        "main_since_ns": 1, "instances": 1, "members": 1, "generation": 2, "restarts": 1, "ready": true,
        "listeners": [{"address": "tcp:80", "state": "listening", "holder": null, "inode": 7, "queue": 0, "limit": 128, "since_ns": 1}],
        "pid_file": null, "unit": null, "heartbeat_age_ns": null, "stopping": null, "last_end": null, "gave_up": false,
        "findings": [], "silenced": null, "tier": {}, "cannot_see": [],
    });
    for (name, value) in more.as_object().unwrap() {
        s[name] = value.clone();
    }
    serde_json::from_value(s).unwrap()
}

#[track_caller]
fn check(wanted: Wanted, after: Option<u64>, more: serde_json::Value, expected: Option<Outcome>) {
    assert_eq!(
        Wait::new("annad", wanted, after).outcome(&service(more)),
        expected
    );
}

fn gone() -> serde_json::Value {
    json!({"main": null, "members": 0, "instances": 0})
}

#[test]
fn ready_is_what_answers_and_stays() {
    let ready = |more, expected| check(Wanted::Ready, None, more, expected);
    ready(json!({}), Some(Outcome::Reached));
    ready(json!({"verdict": "finding"}), Some(Outcome::Reached));
    ready(json!({"verdict": "unknown"}), None);
    ready(json!({"ready": false}), None);
    ready(gone(), None);
    ready(
        json!({"stopping": {"since_ns": 1, "asked": "with TERM by kill (9)"}}),
        None,
    );
    for state in ["bound", "shut_down", "orphaned", "stale", "absent", "unknown"] {
        let mut s = service(json!({}));
        s.listeners[0].state = serde_json::from_value(state.into()).unwrap();
        assert_eq!(
            Wait::new("annad", Wanted::Ready, None).outcome(&s),
            None,
            "{state}"
        );
    }
}

#[test]
fn a_generation_that_has_been_does_not_count() {
    check(Wanted::Ready, Some(2), json!({}), None);
    check(Wanted::Ready, Some(1), json!({}), Some(Outcome::Reached));
    check(Wanted::Stopped, Some(2), gone(), None);
}

#[test]
fn stopped_is_without_any_process() {
    check(Wanted::Stopped, None, gone(), Some(Outcome::Reached));
    check(Wanted::Stopped, None, json!({"main": null}), None);
    check(Wanted::Stopped, None, json!({}), None);
    // A service that was given up is stopped all the same.
    let mut gave_up = gone();
    gave_up["gave_up"] = true.into();
    check(Wanted::Stopped, None, gave_up.clone(), Some(Outcome::Reached));
    check(Wanted::Ready, None, gave_up, Some(Outcome::GaveUp));
    // Somebody has started it by hand.
    check(
        Wanted::Ready,
        None,
        json!({"gave_up": true}),
        Some(Outcome::Reached),
    );
    check(
        Wanted::Ready,
        None,
        json!({"gave_up": true, "ready": false}),
        None,
    );
}

#[test]
fn what_is_lacking_is_said() {
    let late = |wanted, after, more| {
        let mut wait = Wait::new("annad", wanted, after);
        wait.last = Some(service(more));
        wait.answer(Outcome::TimedOut, 1).summary
    };
    let says = |text: String, what: &str| assert!(text.contains(what), "{text}");
    says(
        late(Wanted::Ready, None, gone()),
        "annad is not ready yet: no process of it runs",
    );
    says(late(Wanted::Ready, Some(2), json!({})), "it has to come after 2");
    says(
        late(
            Wanted::Ready,
            None,
            json!({"stopping": {"since_ns": 1, "asked": "with TERM by kill (9)"}}),
        ),
        "annad (812), generation 2, is being stopped with TERM by kill (9)",
    );
    says(
        late(Wanted::Ready, None, json!({"ready": false})),
        "does not serve its addresses itself",
    );
    says(
        late(Wanted::Stopped, None, json!({})),
        "annad is not stopped yet: annad (812), generation 2, runs",
    );
}
