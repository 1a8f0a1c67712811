//! The engine on a simulated clock.
