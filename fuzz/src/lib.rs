//! What every fuzzing program is made of; what it calls lies in `probe_user::fuzz`.

#[cfg(fuzzing)]
#[doc(hidden)]
pub use libfuzzer_sys;

/// The program of one target. Built without the fuzzer it only says how to build it.
#[macro_export]
macro_rules! program {
    ($name:literal) => {
        #[cfg(fuzzing)]
        $crate::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $crate::run($name, bytes));

        #[cfg(not(fuzzing))]
        fn main() {
            eprintln!(
                "this program has no fuzzer in it: cargo xtask fuzz {}",
                $name
            );
        }
    };
}

pub use probe_user::fuzz::run;
