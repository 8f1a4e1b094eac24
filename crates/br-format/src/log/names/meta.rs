use br_types::{StoreId, TimeStamp};

use super::META_FOLDER;

pub(super) const SUFFIX: &str = ".meta";
const HEX_DIGITS: usize = 16;
const NO_SCHEMAS: u64 = 1;
const EMPTY: u64 = 1 << 1;

/// What a name says about the content of metadata.
///
/// Metadata that is written anew, by truncation or a migration, keeps its name. So the ranges in a
/// name are those of more than there is, never of less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// The least `start_ts` of the transactions that wrote; zero in empty metadata.
    pub min_begin_ts: TimeStamp,
    /// The least timestamp of a record.
    pub min_ts: TimeStamp,
    /// The greatest timestamp of a record.
    pub max_ts: TimeStamp,
}

impl Stats {
    /// Whether filters may rely on it: only then is the least `start_ts` known.
    pub fn is_sound(&self) -> bool {
        !self.min_begin_ts.is_zero() && self.min_begin_ts <= self.min_ts
    }
}

/// What metadata lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetaFlags {
    /// It has no files of schemas.
    pub no_schemas: bool,
    /// It has no files at all.
    pub empty: bool,
}

/// The name of metadata: the index of what one store flushed at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaName {
    /// As stores write it now: `{flush_ts}{store}-d{}l{}u{}p{}.meta`.
    Tagged {
        /// When it was flushed; one store never gives it twice.
        flush_ts: TimeStamp,
        /// The store.
        store: StoreId,
        /// Tags `d`, `l` and `u`.
        stats: Stats,
        /// Tag `p`; without it, nothing is lacking.
        flags: Option<MetaFlags>,
    },
    /// As versions 8 and 9 wrote it: `{flush_ts}-{min_begin}-{min_ts}-{max_ts}.meta`.
    Dashed {
        /// When it was flushed.
        flush_ts: TimeStamp,
        /// The ranges.
        stats: Stats,
    },
    /// As the first versions wrote it: `{resolved_ts}-{uuid}.meta`, the number in decimal.
    Old {
        /// How far the store had come.
        resolved_ts: TimeStamp,
        /// A UUID.
        unique: String,
    },
}

impl MetaName {
    /// Reads the name of an object. `None` is a form that is not known: such an object may hold
    /// anything.
    pub fn parse(name: &str) -> Option<MetaName> {
        let name = name
            .strip_prefix(META_FOLDER)?
            .strip_prefix('/')?
            .strip_suffix(SUFFIX)?;
        let (head, tail) = name.split_once('-')?;
        if head.len() == 2 * HEX_DIGITS {
            parse_tagged(head, tail)
        } else if head.len() == HEX_DIGITS && tail.split('-').count() == 3 {
            parse_dashed(head, tail)
        } else {
            parse_old(head, tail)
        }
    }

    /// The whole name.
    pub fn to_name(&self) -> String {
        let stem = match self {
            MetaName::Tagged {
                flush_ts,
                store,
                stats,
                flags,
            } => {
                let Stats {
                    min_begin_ts,
                    min_ts,
                    max_ts,
                } = stats;
                let flags = flags.map_or(String::new(), |flags| {
                    let bits = if flags.no_schemas { NO_SCHEMAS } else { 0 }
                        | if flags.empty { EMPTY } else { 0 };
                    format!("p{bits:016X}")
                });
                format!(
                    "{:016X}{:016X}-d{:016X}l{:016X}u{:016X}{flags}",
                    flush_ts.0, store.0, min_begin_ts.0, min_ts.0, max_ts.0
                )
            }
            MetaName::Dashed { flush_ts, stats } => format!(
                "{:016X}-{:016X}-{:016X}-{:016X}",
                flush_ts.0, stats.min_begin_ts.0, stats.min_ts.0, stats.max_ts.0
            ),
            MetaName::Old {
                resolved_ts,
                unique,
            } => format!("{resolved_ts}-{unique}"),
        };
        format!("{META_FOLDER}/{stem}{SUFFIX}")
    }

    /// The ranges in it, if filters may rely on them.
    pub fn sound_stats(&self) -> Option<Stats> {
        match self {
            MetaName::Tagged { stats, .. } | MetaName::Dashed { stats, .. } => {
                stats.is_sound().then_some(*stats)
            }
            MetaName::Old { .. } => None,
        }
    }

    /// When it was flushed.
    pub fn flush_ts(&self) -> Option<TimeStamp> {
        match self {
            MetaName::Tagged { flush_ts, .. } | MetaName::Dashed { flush_ts, .. } => {
                Some(*flush_ts)
            }
            MetaName::Old { .. } => None,
        }
    }

    /// Who flushed it.
    pub fn store(&self) -> Option<StoreId> {
        match self {
            MetaName::Tagged { store, .. } => Some(*store),
            MetaName::Dashed { .. } | MetaName::Old { .. } => None,
        }
    }

    /// Whether it may have files of schemas.
    pub fn may_have_schemas(&self) -> bool {
        !matches!(self, MetaName::Tagged { flags: Some(flags), .. } if flags.no_schemas)
    }

    /// Whether it says that the metadata has no files.
    pub fn is_empty(&self) -> bool {
        matches!(self, MetaName::Tagged { flags: Some(flags), .. } if flags.empty)
    }

    /// Whether the metadata may have something for a restore up to `restored_ts` that needs records
    /// from `shift_ts` on. It is so in doubt.
    pub fn may_hold(&self, shift_ts: TimeStamp, restored_ts: TimeStamp) -> bool {
        if self.is_empty() {
            return false;
        }
        self.sound_stats()
            .is_none_or(|stats| stats.min_begin_ts <= restored_ts && stats.max_ts >= shift_ts)
    }
}

fn hex_u64(digits: &str) -> Option<u64> {
    // `from_str_radix` alone would take a sign.
    let all_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (digits.len() == HEX_DIGITS && all_hex)
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}

fn parse_tagged(head: &str, mut tail: &str) -> Option<MetaName> {
    let (flush_ts, store) = head.split_at_checked(HEX_DIGITS)?;
    let (flush_ts, store) = (hex_u64(flush_ts)?, hex_u64(store)?);
    let mut values: Vec<(u8, u64)> = Vec::new();
    while !tail.is_empty() {
        let (segment, rest) = tail.split_at_checked(1 + HEX_DIGITS)?;
        let (tag, digits) = segment.split_at_checked(1)?;
        let tag = *tag.as_bytes().first()?;
        let is_new = values.iter().all(|(known, _)| *known != tag);
        if !tag.is_ascii_alphanumeric() || !is_new {
            return None;
        }
        values.push((tag, hex_u64(digits)?));
        tail = rest;
    }
    let value = |tag: u8| {
        let found = values.iter().find(|(known, _)| *known == tag);
        found.map(|(_, value)| *value)
    };
    Some(MetaName::Tagged {
        flush_ts: TimeStamp(flush_ts),
        store: StoreId(store),
        stats: Stats {
            min_begin_ts: TimeStamp(value(b'd')?),
            min_ts: TimeStamp(value(b'l')?),
            max_ts: TimeStamp(value(b'u')?),
        },
        flags: value(b'p').map(|bits| MetaFlags {
            no_schemas: bits & NO_SCHEMAS != 0,
            empty: bits & EMPTY != 0,
        }),
    })
}

fn parse_dashed(head: &str, tail: &str) -> Option<MetaName> {
    let mut parts = tail.split('-').map(hex_u64);
    let mut next = || parts.next().flatten().map(TimeStamp);
    Some(MetaName::Dashed {
        flush_ts: TimeStamp(hex_u64(head)?),
        stats: Stats {
            min_begin_ts: next()?,
            min_ts: next()?,
            max_ts: next()?,
        },
    })
}

fn parse_old(head: &str, tail: &str) -> Option<MetaName> {
    let is_number = !head.is_empty() && head.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || tail.is_empty() || tail.contains('/') {
        return None;
    }
    Some(MetaName::Old {
        resolved_ts: TimeStamp(head.parse().ok()?),
        unique: tail.to_owned(),
    })
}
