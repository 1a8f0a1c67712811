//! The service that `--unix`, `--tcp`, `--udp`, `--pid`, `--pid-file` and `--exe` declare together.

use std::path::Path;

use probe_user::{address::Address, config::Service};

use super::Declared;

pub(super) fn unix(text: &str) -> Result<Address, String> {
    let name = text.strip_prefix("unix:").unwrap_or(text);
    let name = if name.starts_with('@') {
        name.to_owned()
    } else {
        path(name)?
    };
    parse(&format!("unix:{name}"))
}

pub(super) fn tcp(text: &str) -> Result<Address, String> {
    parse(&format!("tcp:{}", text.strip_prefix("tcp:").unwrap_or(text)))
}

pub(super) fn udp(text: &str) -> Result<Address, String> {
    parse(&format!("udp:{}", text.strip_prefix("udp:").unwrap_or(text)))
}

fn parse(text: &str) -> Result<Address, String> {
    text.parse()
        .map_err(|e: probe_user::address::AddressError| e.to_string())
}

/// Absolute, from where probe was started.
pub(super) fn path(text: &str) -> Result<String, String> {
    let path = std::path::absolute(text).map_err(|e| e.to_string())?;
    path.into_os_string()
        .into_string()
        .map_err(|p| format!("the path {p:?} is no UTF-8"))
}

impl Declared {
    /// `None`: no option declares anything.
    pub(crate) fn service(&self) -> Option<Service> {
        let listen: Vec<Address> = [&self.unix, &self.tcp, &self.udp]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let name = name(self, listen.first())?;
        Some(Service {
            exe: self.exe.clone(),
            pid_file: self.pid_file.clone(),
            pid: self.pid,
            listen,
            ..Service::named(name)
        })
    }
}

fn name(declared: &Declared, address: Option<&Address>) -> Option<String> {
    let last = |path: &str| {
        Path::new(path)
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
    };
    let stem = |path: &str| {
        Path::new(path)
            .file_stem()
            .map(|n| n.to_string_lossy().into_owned())
    };
    let exe = declared.exe.as_deref().and_then(last);
    let pid_file = || declared.pid_file.as_deref().and_then(stem);
    let pid = || declared.pid.map(|pid| format!("pid-{pid}"));
    exe.or_else(pid_file)
        .or_else(|| address.map(Address::to_string))
        .or_else(pid)
}
