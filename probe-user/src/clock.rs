//! The only clock. Everything else is told the time.

mod eras;

use std::{
    fmt, ops,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Nanoseconds on the boot clock (`CLOCK_BOOTTIME`), which goes on while the machine sleeps.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Nanos(pub u64);

impl Nanos {
    pub const ZERO: Self = Self(0);

    /// The time since `earlier`, zero if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl ops::Add<Duration> for Nanos {
    type Output = Self;

    fn add(self, d: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// Nanoseconds since the Unix epoch on the wall clock, for what outlives a boot. It goes backwards when it is set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wall(pub i64);

impl Wall {
    /// The time since `earlier`, zero if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        u64::try_from(self.0.saturating_sub(earlier.0)).map_or(Duration::ZERO, Duration::from_nanos)
    }
}

impl ops::Add<Duration> for Wall {
    type Output = Self;

    fn add(self, d: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)),
        )
    }
}

impl ops::Sub<Duration> for Wall {
    type Output = Self;

    fn sub(self, d: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)),
        )
    }
}

fn read(clock: libc::clockid_t) -> Nanos {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `t` is a valid timespec for the kernel to fill; these clocks exist on every supported kernel.
    unsafe { libc::clock_gettime(clock, &raw mut t) };
    Nanos(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
}

/// Now, on the boot clock.
pub fn now() -> Nanos {
    read(libc::CLOCK_BOOTTIME)
}

/// Now, on the wall clock.
pub fn wall() -> Wall {
    Wall(read(libc::CLOCK_REALTIME).0 as i64)
}

/// The boot-clock time of a moment on `CLOCK_MONOTONIC`, which stands still while the machine sleeps. A sleep since
/// then makes it later than it was, by as long as the sleep was.
pub fn from_monotonic(at: Duration) -> Nanos {
    let (boot, monotonic) = (read(libc::CLOCK_BOOTTIME).0, read(libc::CLOCK_MONOTONIC).0);
    Nanos(boot.saturating_sub(monotonic)) + at
}

/// For how long the machine has slept since boot.
pub fn slept() -> Duration {
    // Whoever is interrupted between the two reads a little less, in this order.
    let boot = read(libc::CLOCK_BOOTTIME);
    boot.since(read(libc::CLOCK_MONOTONIC))
}

/// What must be added to a boot-clock time to get nanoseconds since the Unix epoch.
pub fn wall_offset() -> i64 {
    for _ in 0..LOOKS {
        let boot = read(libc::CLOCK_BOOTTIME).0;
        let wall = read(libc::CLOCK_REALTIME).0 as i64;
        let after = read(libc::CLOCK_BOOTTIME).0;
        // Whoever was put to sleep between the two would see a clock that was set.
        if after - boot < LOOK_NS {
            let offset = wall - boot as i64;
            ERAS.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .note(Nanos(after), offset);
            return offset;
        }
    }
    read(libc::CLOCK_REALTIME).0 as i64 - read(libc::CLOCK_BOOTTIME).0 as i64
}

/// When the wall clock showed this, in nanoseconds since the Unix epoch; in those of the boot clock: less than 0 before boot. A
/// clock that was set since then, while this process looked, changes nothing.
pub fn when(wall: i128) -> i128 {
    wall_offset();
    ERAS.lock().unwrap_or_else(PoisonError::into_inner).when(wall)
}

/// [`when`], and 0 for before boot.
pub fn since_boot(wall: i64) -> Nanos {
    Nanos(u64::try_from(when(wall.into()).max(0)).unwrap_or(u64::MAX))
}

static ERAS: Mutex<eras::Eras> = Mutex::new(eras::Eras::new());
/// How long one look at both clocks may take, and how often it is tried.
const LOOK_NS: u64 = 10_000_000;
const LOOKS: usize = 5;
