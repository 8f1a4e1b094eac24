use std::convert::Infallible;

use axum::{extract::FromRequestParts, http::request::Parts};

/// The parameters of a request. Values are bytes: keys of regions are no text.
pub(super) struct Query(Vec<(Vec<u8>, Vec<u8>)>);

impl Query {
    fn parse(query: &str) -> Query {
        let pairs = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(name), decode(value))
            });
        Query(pairs.collect())
    }

    /// The value of a parameter, empty if it has none.
    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(other, _)| other == name.as_bytes());
        found.map(|(_, value)| value.as_slice())
    }

    /// The value of a parameter that is text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name)
            .and_then(|value| std::str::from_utf8(value).ok())
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Query, Infallible> {
        Ok(Query::parse(parts.uri.query().unwrap_or_default()))
    }
}

/// Undoes percent-encoding; what is none stays as it is.
pub(super) fn decode(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    while let Some((&byte, rest)) = bytes.split_first() {
        bytes = rest;
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => {
                let hex = rest.get(..2).and_then(|digits| hex::decode(digits).ok());
                match hex.as_deref() {
                    Some([value]) => {
                        decoded.push(*value);
                        bytes = rest.get(2..).unwrap_or_default();
                    }
                    _ => decoded.push(byte),
                }
            }
            byte => decoded.push(byte),
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bytes() {
        let query = Query::parse("start_key=t%80%00%FF_r+x&count&ttlSecond=30&odd=%zz%");
        assert_eq!(query.get("start_key"), Some(&b"t\x80\x00\xFF_r x"[..]));
        assert_eq!(query.get("count"), Some(&b""[..]));
        assert_eq!(query.text("ttlSecond"), Some("30"));
        assert_eq!(query.get("odd"), Some(&b"%zz%"[..]));
        assert_eq!(query.get("end_key"), None);
    }
}
