//! `probe daemon`, as a host runs it: its life under a service manager, what it keeps, whom it tells, what it heals.

mod day;
mod flood;
mod fuzz;
mod heal;
mod history;
mod hooks;
mod hostile;
mod life;
mod privileges;
mod quiet;
mod restarts;
mod scene;
