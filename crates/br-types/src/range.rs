use std::fmt;

/// Keys from `start` on, up to `end` without it; an empty `end` is no bound.
///
/// `K` is one of the three kinds of keys, so that ranges of different kinds do not meet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyRange<K> {
    /// The first key; empty: from the first key of all.
    pub start: K,
    /// The first key beyond the range; empty: no bound.
    pub end: K,
}

impl<K: AsRef<[u8]> + Ord + Clone> KeyRange<K> {
    /// The range from `start` up to, not including, `end`.
    pub fn new(start: impl Into<K>, end: impl Into<K>) -> Self {
        Self {
            start: start.into(),
            end: end.into(),
        }
    }

    /// Whether no key can lie in it.
    pub fn is_empty(&self) -> bool {
        !self.end.as_ref().is_empty() && self.start >= self.end
    }

    /// Whether `key` lies in it.
    pub fn contains(&self, key: &K) -> bool {
        *key >= self.start && self.is_before_end(key)
    }

    /// Whether `key` lies before the end, wherever the start is.
    pub fn is_before_end(&self, key: &K) -> bool {
        self.end.as_ref().is_empty() || *key < self.end
    }

    /// Whether every key of `other` lies in it.
    pub fn covers(&self, other: &Self) -> bool {
        other.is_empty() || (self.start <= other.start && end_le(&other.end, &self.end))
    }

    /// Whether some key could lie in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.intersect(other).is_some()
    }

    /// The keys that lie in both; `None` if there can be none.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let start = self.start.clone().max(other.start.clone());
        let end = if end_le(&self.end, &other.end) {
            self.end.clone()
        } else {
            other.end.clone()
        };
        let both = Self { start, end };
        (!both.is_empty()).then_some(both)
    }
}

/// Compares two exclusive ends, where empty is the greatest.
fn end_le<K: AsRef<[u8]> + Ord>(a: &K, b: &K) -> bool {
    b.as_ref().is_empty() || (!a.as_ref().is_empty() && a <= b)
}

/// `[start, end)` in hexadecimal.
impl<K: fmt::Display> fmt::Display for KeyRange<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RawKey;

    fn range(start: &str, end: &str) -> KeyRange<RawKey> {
        KeyRange::new(start.as_bytes(), end.as_bytes())
    }

    #[test]
    fn an_empty_end_is_no_bound() {
        assert!(range("b", "").contains(&RawKey::from(&b"zzz"[..])));
        assert!(!range("b", "").contains(&RawKey::from(&b"a"[..])));
        assert!(range("", "").covers(&range("a", "")));
        assert!(!range("", "z").covers(&range("a", "")));
    }

    #[test]
    fn intersection_is_the_common_part() {
        assert_eq!(
            range("a", "m").intersect(&range("c", "")),
            Some(range("c", "m"))
        );
        assert_eq!(range("a", "c").intersect(&range("c", "d")), None);
        assert_eq!(range("", "").intersect(&range("", "")), Some(range("", "")));
    }
}
