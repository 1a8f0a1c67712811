//! `probe silence`: begins, lists and ends silences.

use probe_user::{
    api::types::{self, NewSilence, Silences},
    clock, report,
};

use crate::cli::Silence;

pub(crate) fn run(args: &Silence) -> anyhow::Result<()> {
    let client = super::client(&args.reach)?;
    if let Some(id) = args.end {
        let path = format!("/v1/silences/{id}");
        let ended: types::Silence = super::block_on(async { Ok(client.delete(&path).await?) })?;
        return super::print(args.json, &ended, |out, _| {
            let text = format!(
                "{} is not silenced by {} any more\n",
                report::plain(&ended.service),
                ended.id
            );
            out.extend_from_slice(text.as_bytes());
            Ok(())
        });
    }
    let Some(service) = &args.service else {
        let all: Silences = super::block_on(async { Ok(client.get("/v1/silences").await?) })?;
        return super::print(args.json, &all, |out, look| {
            report::silences(out, look, &all, clock::wall())
        });
    };
    let duration = args.duration.unwrap_or_default();
    let new = NewSilence {
        service: service.clone(),
        // A part of a second counts as a whole one.
        seconds: duration.as_secs() + u64::from(duration.subsec_nanos() > 0),
        reason: args.reason.clone().unwrap_or_default(),
    };
    let silence: types::Silence = super::block_on(async { Ok(client.post("/v1/silences", &new).await?) })?;
    super::print(args.json, &silence, |out, _| {
        report::silence(out, &silence, clock::wall())
    })
}
