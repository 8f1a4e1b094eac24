use std::fmt::{self, Write as _};

use br_rt::Rt;
use jiff::{Timestamp, Zoned, tz::TimeZone};
use serde_json::{Map, Value};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use super::LogFormat;

/// Fields with user data in them, hidden by `--redact-info-log`.
const USER_DATA: [&str; 7] = [
    "key",
    "start_key",
    "end_key",
    "start",
    "end",
    "range",
    "value",
];

/// Events of this target are lines in the official form already, from after the caller on.
pub(crate) const READY_LINE: &str = "ready_line";

/// A local time, as log lines have it.
pub(crate) struct Stamp(Zoned);

impl Stamp {
    pub(crate) fn now(rt: &Rt) -> Stamp {
        let millis = i64::try_from(rt.wall().0).unwrap_or(i64::MAX);
        let time = Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX);
        Stamp(time.to_zoned(TimeZone::system()))
    }

    pub(crate) fn for_file_name(&self) -> String {
        self.0.strftime("%Y-%m-%dT%H.%M.%S%z").to_string()
    }
}

/// `2026/11/21 10:17:45.123 +00:00`.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime("%Y/%m/%d %H:%M:%S%.3f %:z"))
    }
}

/// The official format: `[time] [INFO] [file.rs:12] ["message"] [name=value]…`, or JSON.
pub(super) struct OfficialFormat {
    rt: Rt,
    format: LogFormat,
    redact: bool,
}

impl OfficialFormat {
    pub(super) fn new(rt: Rt, format: LogFormat, redact: bool) -> OfficialFormat {
        OfficialFormat { rt, format, redact }
    }
}

impl<S, N> FormatEvent<S, N> for OfficialFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields {
            redact: self.redact,
            ..Fields::default()
        };
        event.record(&mut fields);
        let metadata = event.metadata();
        let file = metadata
            .file()
            .and_then(|path| path.rsplit('/').next())
            .unwrap_or("?");
        let caller = format!("{file}:{}", metadata.line().unwrap_or(0));
        let level = level_name(*metadata.level());
        let time = Stamp::now(&self.rt);
        match self.format {
            LogFormat::Text if metadata.target() == READY_LINE => {
                writeln!(writer, "[{time}] [{level}] [{caller}] {}", fields.message)
            }
            LogFormat::Text => {
                write!(
                    writer,
                    "[{time}] [{level}] [{caller}] [{}]",
                    bracketed(&fields.message)
                )?;
                for (name, value) in &fields.rest {
                    write!(writer, " [{}={}]", bracketed(name), bracketed(value))?;
                }
                writeln!(writer)
            }
            LogFormat::Json => {
                let mut line = Map::new();
                line.insert("level".into(), level.into());
                line.insert("time".into(), time.to_string().into());
                line.insert("caller".into(), caller.into());
                line.insert("message".into(), fields.message.into());
                let rest = fields
                    .rest
                    .into_iter()
                    .map(|(name, value)| (name, Value::from(value)));
                line.extend(rest);
                writeln!(writer, "{}", Value::Object(line))
            }
        }
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        _ => "DEBUG",
    }
}

/// Text as the official log writes it: as JSON if it has blanks, brackets, quotes, `=` or what is
/// not printable.
pub(crate) fn bracketed(text: &str) -> String {
    let plain = |c: char| !c.is_control() && !matches!(c, ' ' | '"' | '=' | '[' | ']');
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => Value::from(text).to_string(),
    }
}

#[derive(Default)]
struct Fields {
    redact: bool,
    message: String,
    rest: Vec<(String, String)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: String) {
        let name = field.name();
        if name == "message" {
            self.message = value;
        } else if self.redact && USER_DATA.contains(&name) {
            self.rest.push((name.to_owned(), "?".to_owned()));
        } else {
            self.rest.push((name.to_owned(), value));
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // A String takes everything.
        let _ = write!(text, "{value:?}");
        self.add(field, text);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(format: LogFormat, redact: bool) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _guard = runtime.enter();
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(OfficialFormat::new(Rt::real(), format, redact))
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(store = 4, start_key = "7A", why = "a [b]", "two words");
            tracing::info!(target: READY_LINE, "[\"Full Backup\"] [x=1]");
        });
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn text_is_bracketed() {
        let lines = lines(LogFormat::Text, false);
        let (line, ready) = lines.split_once('\n').unwrap();
        assert!(ready.ends_with("] [\"Full Backup\"] [x=1]\n"), "{ready}");
        let (time, rest) = line.split_once("] [INFO] [format.rs:").unwrap();
        assert_eq!(
            time.len(),
            "[2026/11/21 10:17:45.123 +00:00".len(),
            "{time}"
        );
        let (_, rest) = rest.split_once("] ").unwrap();
        assert_eq!(
            rest,
            "[\"two words\"] [store=4] [start_key=7A] [why=\"a [b]\"]"
        );
    }

    #[test]
    fn json_has_an_object_a_line_and_user_data_is_hidden_on_demand() {
        let lines = lines(LogFormat::Json, true);
        let line: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        assert_eq!(line["message"], "two words");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["start_key"], "?");
        assert_eq!(line["why"], "a [b]");
    }
}
