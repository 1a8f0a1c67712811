//! A parsed file in which every key and value still knows its place.

use std::ops::Range;

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue, Deserializer},
};

use super::{Config, check::Step};

/// No file has so many problems that more of them would help.
const MAX_PROBLEMS: usize = 50;

pub(super) struct Tree<'i>(Spanned<DeTable<'i>>);

/// Something wrong at these bytes of the text.
pub(super) struct Complaint {
    pub(super) span: Option<Range<usize>>,
    pub(super) message: String,
}

impl<'i> Tree<'i> {
    pub(super) fn parse(text: &'i str) -> Result<Self, Vec<Complaint>> {
        // What follows the first slip is often only its consequence.
        DeTable::parse(text).map(Self).map_err(|e| vec![complaint(&e)])
    }

    /// What the file says. What is wrong is taken out and named, so that the rest can be looked at.
    pub(super) fn read(&mut self) -> (Config, Vec<Complaint>) {
        let mut complaints = Vec::new();
        while complaints.len() < MAX_PROBLEMS {
            let error = match Config::deserialize(Deserializer::from(self.0.clone())) {
                Ok(config) => return (config, complaints),
                Err(error) => error,
            };
            let path = error
                .span()
                .and_then(|span| self.path_of(&span))
                .map(|path| self.item_to_blame(path, &error));
            let mut complaint = complaint(&error);
            if let Some(path @ [.., Step::Index(_)]) = path.as_deref() {
                complaint.span = self.span_of(path);
            }
            complaints.push(complaint);
            let Some(path) = path else { break };
            self.remove(&path);
        }
        (Config::default(), complaints)
    }

    /// The keys of a table on the top level.
    pub(super) fn table(&self, key: &str) -> toml::Table {
        let (span, found) = match self.0.get_ref().get(key).map(|v| (v.span(), v.get_ref())) {
            Some((span, DeValue::Table(t))) => (span, t.clone()),
            _ => return toml::Table::new(),
        };
        toml::Table::deserialize(Deserializer::from(Spanned::new(span, found))).unwrap_or_default()
    }

    /// An error in an item of a list has the list's place. The item is the last one of the shortest beginning of the list
    /// that gives the same error.
    fn item_to_blame(&self, mut path: Vec<Step>, error: &toml::de::Error) -> Vec<Step> {
        let mut trial = Self(self.0.clone());
        let Some(Place::Array(list)) = trial.get_mut(&path) else {
            return path;
        };
        let items = list.to_vec();
        let mut fails_with = |len: usize| {
            if let Some(Place::Array(list)) = trial.get_mut(&path) {
                *list = DeArray::new();
                items[..len].iter().for_each(|item| list.push(item.clone()));
            }
            let result = Config::deserialize(Deserializer::from(trial.0.clone()));
            result.is_err_and(|e| e.span() == error.span() && e.message() == error.message())
        };
        // An error that stays when the list is empty is about the list.
        if fails_with(0) {
            return path;
        }
        let (mut passes, mut fails) = (0, items.len());
        while passes + 1 < fails {
            let middle = passes.midpoint(fails);
            *if fails_with(middle) {
                &mut fails
            } else {
                &mut passes
            } = middle;
        }
        if fails > 0 {
            path.push(Step::Index(fails - 1));
        }
        path
    }

    /// Where the value at `path` stands, or the last part of the path that is there: its key, or its place in a list.
    pub(super) fn span_of(&self, path: &[Step]) -> Option<Range<usize>> {
        self.walk(path).last()
    }

    /// Whether every step of the path is there.
    pub(super) fn has(&self, path: &[Step]) -> bool {
        self.walk(path).count() == path.len()
    }

    /// The place of each step that is there.
    fn walk<'a>(&'a self, path: &'a [Step]) -> impl Iterator<Item = Range<usize>> + 'a {
        let mut table = Some(self.0.get_ref());
        let mut array = None;
        path.iter().map_while(move |step| {
            let (span, value) = match step {
                Step::Key(key) => table?.get_key_value(key.as_str()).map(|(k, v)| (k.span(), v))?,
                Step::Index(i) => {
                    let items: &DeArray<'_> = array?;
                    items.get(*i).map(|v| (v.span(), v))?
                }
            };
            table = value.get_ref().as_table();
            array = value.get_ref().as_array();
            Some(span)
        })
    }

    /// The smallest key or value that contains `span`.
    fn path_of(&self, span: &Range<usize>) -> Option<Vec<Step>> {
        let mut search = Search {
            span,
            best: None,
            at: Vec::new(),
        };
        search.table(self.0.get_ref());
        search.best.map(|(_, path)| path)
    }

    fn get_mut(&mut self, path: &[Step]) -> Option<Place<'_, 'i>> {
        let mut place = Place::Table(self.0.get_mut());
        for step in path {
            let next = match (place, step) {
                (Place::Table(t), Step::Key(key)) => t.get_mut(key.as_str()),
                (Place::Array(a), Step::Index(i)) => a.get_mut(*i),
                _ => None,
            };
            place = match next?.get_mut() {
                DeValue::Table(t) => Place::Table(t),
                DeValue::Array(a) => Place::Array(a),
                _ => return None,
            };
        }
        Some(place)
    }

    fn remove(&mut self, path: &[Step]) {
        let Some((last, parents)) = path.split_last() else {
            return;
        };
        match (self.get_mut(parents), last) {
            (Some(Place::Table(t)), Step::Key(key)) => {
                t.remove(key.as_str());
            }
            (Some(Place::Array(a)), Step::Index(i)) => {
                let mut rest = DeArray::new();
                for (_, item) in a.iter().enumerate().filter(|(at, _)| at != i) {
                    rest.push(item.clone());
                }
                *a = rest;
            }
            _ => {}
        }
    }
}

enum Place<'a, 'i> {
    Table(&'a mut DeTable<'i>),
    Array(&'a mut DeArray<'i>),
}

struct Search<'a> {
    span: &'a Range<usize>,
    best: Option<(usize, Vec<Step>)>,
    at: Vec<Step>,
}

impl Search<'_> {
    fn table(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            self.at.push(Step::Key(key.get_ref().to_string()));
            self.consider(&key.span());
            self.value(value);
            self.at.pop();
        }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>) {
        self.consider(&value.span());
        match value.get_ref() {
            DeValue::Table(table) => self.table(table),
            DeValue::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.at.push(Step::Index(i));
                    self.value(item);
                    self.at.pop();
                }
            }
            _ => {}
        }
    }

    fn consider(&mut self, candidate: &Range<usize>) {
        let holds = candidate.start <= self.span.start && self.span.end <= candidate.end;
        // The same place on a deeper level is nearer: a list of tables may have the place of its first.
        if holds && self.best.as_ref().is_none_or(|(len, _)| candidate.len() <= *len) {
            self.best = Some((candidate.len(), self.at.clone()));
        }
    }
}

fn complaint(error: &toml::de::Error) -> Complaint {
    Complaint {
        span: error.span(),
        message: reword(error.message()),
    }
}

/// serde names all valid keys where one was not known; the nearest is of more use.
fn reword(message: &str) -> String {
    let unknown = [("unknown field `", "key"), ("unknown variant `", "value")];
    for (begin, what) in unknown {
        let Some((name, rest)) = message.strip_prefix(begin).and_then(|m| m.split_once('`')) else {
            continue;
        };
        let valid: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
        return match super::load::nearest(name, &valid) {
            Some(nearest) => format!("unknown {what} `{name}`, did you mean `{nearest}`?"),
            None => format!("unknown {what} `{name}`, expected one of {}", valid.join(", ")),
        };
    }
    match message
        .strip_prefix("missing field `")
        .and_then(|m| m.strip_suffix('`'))
    {
        Some(name) => format!("the key `{name}` is missing"),
        None => message.replace('\n', ", "),
    }
}
