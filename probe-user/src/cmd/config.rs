//! `probe config`: check, show, discover, schema.

use std::{
    io::{self, Write},
    path::Path,
};

use probe_user::{
    config::{
        self, Service,
        load::{self, ConfigError, Loaded},
        reference::{Form, reference},
    },
    discover,
    sources::observer::Observer,
};
use serde_json::json;

use crate::cli::{Config, ConfigCommand, SchemaFormat};

pub(crate) fn run(args: &Config) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match args.command {
        ConfigCommand::Check => check(&mut out, args)?,
        ConfigCommand::Show => show(&mut out, args)?,
        ConfigCommand::Schema { format } => schema(&mut out, format)?,
        ConfigCommand::Discover => out.write_all(starter(&discovered()?).as_bytes())?,
    }
    Ok(out.flush()?)
}

fn load(args: &Config) -> Result<Option<Loaded>, ConfigError> {
    load::load(args.config.as_deref(), Path::new(load::DIRECTORY))
}

fn check(out: &mut impl Write, args: &Config) -> anyhow::Result<()> {
    let loaded = load(args);
    if args.json {
        writeln!(out, "{}", check_json(&loaded))?;
    }
    match loaded? {
        _ if args.json => {}
        None => writeln!(
            out,
            "no configuration in {}: probe watches what it discovers",
            load::DIRECTORY
        )?,
        Some(Loaded { config, files }) => {
            let files: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
            let (services, hooks) = (config.services.len(), config.hooks.len());
            writeln!(
                out,
                "ok: {}, {} in {}",
                count(services, "service"),
                count(hooks, "hook"),
                files.join(", ")
            )?;
        }
    }
    Ok(())
}

fn check_json(loaded: &Result<Option<Loaded>, ConfigError>) -> serde_json::Value {
    let (loaded, problems) = match loaded {
        Ok(loaded) => (loaded.as_ref(), &[][..]),
        Err(e) => (None, &e.problems[..]),
    };
    let problems: Vec<_> = problems
        .iter()
        .map(|p| {
            let place = p.place.as_ref();
            json!({
                "path": p.path.to_string_lossy(),
                "line": place.map(|p| p.line),
                "column": place.map(|p| p.column),
                "message": p.message,
            })
        })
        .collect();
    json!({
        "v": 1,
        "valid": problems.is_empty(),
        "files": loaded.map(|l| l.files.iter().map(|f| f.to_string_lossy()).collect::<Vec<_>>()),
        "services": loaded.map(|l| l.config.services.len()),
        "problems": problems,
    })
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn show(out: &mut impl Write, args: &Config) -> anyhow::Result<()> {
    let loaded = load(args)?;
    let config = loaded.map_or_else(config::Config::default, |l| l.config);
    if args.json {
        serde_json::to_writer(&mut *out, &config).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", toml::to_string_pretty(&config)?)?;
    }
    Ok(())
}

fn schema(out: &mut impl Write, format: SchemaFormat) -> io::Result<()> {
    let form = match format {
        SchemaFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, &config::schema::schema())?;
            return writeln!(out);
        }
        SchemaFormat::Markdown => Form::Markdown,
        SchemaFormat::Man => Form::Man,
    };
    out.write_all(reference(form).as_bytes())
}

fn discovered() -> anyhow::Result<Vec<Service>> {
    let mut observer = Observer::new(None)?;
    let listeners = observer.listening_everything()?;
    Ok(discover::discover(&listeners, &discover::Host::read()).services)
}

/// A configuration file that says no more than it must: a default that is not written can become a better one.
fn starter(services: &[Service]) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let mut text = "# Found by `probe config discover`. Remove what need not run.\n".to_owned();
    for s in services {
        text += &format!("\n[[service]]\nname = {}\n", quoted(&s.name));
        let keys = [
            ("unit", &s.unit),
            ("exe", &s.exe),
            ("script", &s.script),
            ("pid_file", &s.pid_file),
        ];
        for (key, value) in keys {
            if let Some(value) = value {
                text += &format!("{key} = {}\n", quoted(value));
            }
        }
        if !s.listen.is_empty() {
            let listen: Vec<String> = s.listen.iter().map(|a| quoted(&a.to_string())).collect();
            text += &format!("listen = [{}]\n", listen.join(", "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_starter_file_is_a_configuration() {
        let service = Service {
            exe: Some("/usr/bin/odd \"name\"\n".into()),
            unit: Some("odd.service".into()),
            pid_file: Some("/run/odd.pid".into()),
            listen: vec![
                "unix:/run/odd.sock".parse().unwrap(),
                "tcp:[::1]:80".parse().unwrap(),
            ],
            ..Service::named("odd")
        };
        let config: config::Config = toml::from_str(&starter(std::slice::from_ref(&service))).unwrap();
        assert_eq!(config.services, [service]);
    }
}
