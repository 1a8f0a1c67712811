//! The engine on a simulated clock. Each test tells a story in events and says what must be found.

mod asked_stops;
mod bounds;
mod healthy;
mod order;
mod processes;
mod property;
mod sockets;
mod world;
