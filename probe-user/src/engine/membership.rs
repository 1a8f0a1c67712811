//! Which processes belong to a service.

use crate::{
    config::Service,
    event::{FileId, Process},
};

/// Whether the declaration itself selects this process.
pub fn selects(service: &Service, exe_id: Option<FileId>, process: &Process) -> bool {
    let exe = service.exe.as_ref().is_none_or(|path| {
        process.exe.as_ref() == Some(path) || exe_id.is_some() && process.exe_id == exe_id
    });
    let script = service.script.as_ref().is_none_or(|s| process.argv.contains(s));
    let argument = service.argument.as_ref().is_none_or(|s| process.argv.contains(s));
    let unit = service
        .unit
        .as_ref()
        .is_none_or(|u| process.unit.as_ref() == Some(u));
    let pid = service.pid.is_none_or(|p| process.id.pid == p);
    service.has_selector() && exe && script && argument && unit && pid
}
