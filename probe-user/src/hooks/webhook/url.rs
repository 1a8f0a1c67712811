//! Where a webhook is: `http://HOST[:PORT]/PATH?QUERY`.

use std::str::FromStr;

use hyper::Uri;

/// An `http://` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Of the `Host` header: as it was written.
    pub authority: String,
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
    /// Begins with `/`.
    pub path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error(
        "probe speaks http:// only; for {url:?} let a local proxy speak TLS, or use `exec = [\"curl\", \"--fail\", \"--json\", \"@-\", \"https://…\"]`"
    )]
    Tls { url: String },
    #[error("{url:?} is no URL that begins with http://, as http://127.0.0.1:9093/api/v2/alerts does")]
    NoUrl { url: String },
    #[error("{url:?} contains a user or a password, which probe does not send")]
    User { url: String },
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let url = text.to_owned();
        let uri: Uri = text.parse().map_err(|_| UrlError::NoUrl { url: url.clone() })?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(UrlError::Tls { url }),
            _ => return Err(UrlError::NoUrl { url }),
        }
        let Some(authority) = uri.authority() else {
            return Err(UrlError::NoUrl { url });
        };
        if authority.as_str().contains('@') {
            return Err(UrlError::User { url });
        }
        let host = authority.host().trim_matches(['[', ']']);
        if host.is_empty() {
            return Err(UrlError::NoUrl { url });
        }
        Ok(Self {
            authority: authority.as_str().to_owned(),
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(80),
            path: uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let parts = |text: &str| {
            let url: Url = text.parse().unwrap();
            (url.host, url.port, url.path)
        };
        assert_eq!(
            parts("http://127.0.0.1:9093/api/v2/alerts?x=1"),
            ("127.0.0.1".into(), 9093, "/api/v2/alerts?x=1".into())
        );
        assert_eq!(parts("http://alerts"), ("alerts".into(), 80, "/".into()));
        assert_eq!(parts("http://[::1]:8080/"), ("::1".into(), 8080, "/".into()));
    }

    #[test]
    fn what_is_no_such_url_is_refused() {
        for (text, expected) in [
            ("https://a/", "probe speaks http:// only"),
            ("unix:/run/x", "is no URL"),
            ("/api", "is no URL"),
            ("http://", "is no URL"),
            ("http://u:p@a/", "contains a user or a password"),
            ("http://a b/", "is no URL"),
        ] {
            let error = text.parse::<Url>().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
