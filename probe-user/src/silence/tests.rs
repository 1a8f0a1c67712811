use super::*;

const NOW: Wall = Wall(1_700_000_000_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn it_ends_by_itself_at_its_time() {
    let mut all = Silences::default();
    let id = all.add("annad", NOW, HOUR, " a new disk ", Some(0)).unwrap().id;
    assert_eq!(all.active("annad", NOW).unwrap().reason, "a new disk");
    assert_eq!(all.active("other", NOW), None);
    let end = NOW + HOUR;
    assert_eq!(all.deadline(), Some(end));
    assert!(all.active("annad", Wall(end.0 - 1)).is_some());
    assert_eq!(all.active("annad", end), None);
    assert_eq!(all.expire(Wall(end.0 - 1)), []);
    let ended = all.expire(end);
    assert_eq!(ended.iter().map(|s| s.id).collect::<Vec<_>>(), [id]);
    assert_eq!((all.deadline(), all.list(NOW).count()), (None, 0));
}

#[test]
fn the_longest_of_several_counts_and_each_ends_alone() {
    let mut all = Silences::default();
    let long = all.add("annad", NOW, 3 * HOUR, "long", None).unwrap().id;
    let short = all.add("annad", NOW, HOUR, "short", None).unwrap().id;
    assert!(short > long);
    assert_eq!(all.active("annad", NOW).unwrap().id, long);
    assert_eq!(all.end(long).unwrap().id, long);
    assert_eq!(all.end(long), Err(SilenceError::Unknown(long)));
    assert_eq!(all.active("annad", NOW).unwrap().id, short);
}

#[test]
fn ids_are_never_used_again() {
    let mut all = Silences::default();
    let first = all.add("annad", NOW, HOUR, "x", None).unwrap().clone();
    let second = all.add("annad", NOW, HOUR, "x", None).unwrap().id;
    // A restart after the second one has ended, and the clock has been set back.
    let mut all = Silences::restore([first]);
    let third = all
        .add("annad", NOW + Duration::from_secs(1), HOUR, "x", None)
        .unwrap()
        .id;
    assert!(third > second);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut all = Silences::default();
    let mut add = |lasts, reason: &str| {
        all.add("annad", NOW, lasts, reason, None)
            .map(|_| ())
            .unwrap_err()
    };
    assert_eq!(add(Duration::ZERO, "x"), SilenceError::Duration(Duration::ZERO));
    let long = LONGEST + Duration::from_nanos(1);
    assert_eq!(add(long, "x"), SilenceError::Duration(long));
    assert_eq!(add(HOUR, " "), SilenceError::Reason(0));
    assert_eq!(
        add(HOUR, &"x".repeat(REASON + 1)),
        SilenceError::Reason(REASON + 1)
    );
    let many = (1..=MOST as u64).map(|id| Silence {
        id,
        service: "a".into(),
        since: NOW,
        until: NOW + HOUR,
        reason: "x".into(),
        uid: None,
    });
    let mut all = Silences::restore(many);
    assert_eq!(
        all.add("annad", NOW, HOUR, "x", None).unwrap_err(),
        SilenceError::TooMany
    );
}
