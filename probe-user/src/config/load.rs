//! Reading configuration files.

/// The valid name that `text` was probably meant to be.
pub fn nearest<'a>(text: &str, valid: &[&'a str]) -> Option<&'a str> {
    let distance = |name: &str| strsim::damerau_levenshtein(&text.replace('-', "_"), &name.replace('-', "_"));
    valid
        .iter()
        .map(|name| (distance(name), *name))
        .min()
        .filter(|(d, name)| *d <= 1 + name.len() / 4)
        .map(|(_, n)| n)
}
