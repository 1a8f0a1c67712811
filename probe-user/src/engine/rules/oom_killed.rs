//! `oom-killed`: the kernel's OOM killer chose a member.

use super::{
    super::{finding::Kind, show::describe, verdict::Verdict},
    View, after_end, is_replaced,
};

pub(super) fn judge(view: &View<'_>, verdict: &mut Verdict) {
    let service = view.service;
    for end in service
        .deaths
        .iter()
        .filter(|e| e.oom.is_some() && !is_replaced(service, e))
    {
        let rss = end.oom.and_then(|(rss, ..)| rss);
        let memory = rss.map_or("its memory is unknown".to_owned(), |b| {
            format!("{} MiB resident", b >> 20)
        });
        let summary = format!(
            "the kernel's OOM killer chose {}, {memory}",
            describe(&end.process)
        );
        verdict
            .conditions
            .push(after_end(Kind::OomKilled, service, end, summary));
    }
}
