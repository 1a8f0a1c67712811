//! `probe status`: how each service is, as the daemon knows it.

use probe_user::{api::types::Services, clock, report};

use crate::cli::Status;

pub(crate) fn run(args: &Status) -> anyhow::Result<()> {
    let client = super::client(&args.reach)?;
    let mut answer: Services = super::block_on(async { Ok(client.get("/v1/services").await?) })?;
    let known: Vec<&str> = answer.services.iter().map(|s| s.service.as_str()).collect();
    super::watch::expect_known(&args.services, &known)?;
    if !args.services.is_empty() {
        answer.services.retain(|s| args.services.contains(&s.service));
    }
    super::print(args.json, &answer, |out, look| {
        report::status(out, look, &answer, clock::now(), clock::wall())
    })
}
