//! End-to-end tests.

pub mod faulty;
