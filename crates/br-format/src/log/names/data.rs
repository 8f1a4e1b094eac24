use br_types::{StoreId, TimeStamp};
use jiff::Timestamp;
use jiff::tz::TimeZone;

const ROOT: &str = "v1";
const SCHEMA_FOLDER: &str = "schema-meta";
const SUFFIX: &str = ".log";

/// The name of an object with events.
///
/// The folders say the UTC day and hour of the greatest timestamp in it. Only metadata says what an
/// object holds; its name is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataName {
    /// The least timestamp in it.
    pub min_ts: TimeStamp,
    /// The greatest timestamp in it.
    pub max_ts: TimeStamp,
    /// Who wrote it.
    pub store: StoreId,
    /// Whether it holds schemas; those never share an object with rows.
    pub is_schema: bool,
    /// Any text without `/` that no other object has: a UUID.
    pub unique: String,
}

impl DataName {
    /// The whole name.
    pub fn to_name(&self) -> String {
        let DataName {
            min_ts,
            max_ts,
            store,
            is_schema,
            unique,
        } = self;
        let folder = day_and_hour(*max_ts);
        let schema = if *is_schema {
            format!("{SCHEMA_FOLDER}/")
        } else {
            String::new()
        };
        format!("{ROOT}/{folder}/{store}/{schema}{min_ts}-{unique}{SUFFIX}")
    }

    /// Whether an object has such a name, in the forms of all versions.
    pub fn is_data(name: &str) -> bool {
        name.strip_prefix(ROOT)
            .is_some_and(|rest| rest.starts_with('/') && rest.ends_with(SUFFIX))
    }

    /// The store that stands in a name.
    pub fn store_of(name: &str) -> Option<StoreId> {
        let store = name.split('/').nth(3)?;
        Self::is_data(name)
            .then(|| store.parse().ok().map(StoreId))
            .flatten()
    }
}

/// `YYYYMMDD/HH` in UTC.
fn day_and_hour(ts: TimeStamp) -> String {
    let unix_ms = i64::try_from(ts.physical_ms()).expect("46 bits");
    // All of 46 bits is before the year 4200, and jiff goes to 9999.
    let time = Timestamp::from_millisecond(unix_ms)
        .unwrap_or(Timestamp::MAX)
        .to_zoned(TimeZone::UTC);
    format!(
        "{:04}{:02}{:02}/{:02}",
        time.year(),
        time.month(),
        time.day(),
        time.hour()
    )
}
