//! The engine on a simulated clock. Each test tells a story in events and says what must be found.

mod asked_stops;
mod binds;
mod bounds;
mod episodes;
mod handover;
mod heal;
mod healthy;
mod netns;
mod order;
mod processes;
mod property;
mod sockets;
mod takeover;
mod units;
mod world;
