use std::time::Duration;

/// How a coordinator works. The defaults are the official ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdvancerConfig {
    /// The pause after PD could not be read or an election failed.
    pub backoff: Duration,
    /// Time between two looks at everything; also the longest that collecting may take each time.
    pub tick_interval: Duration,
    /// Keys whose checkpoint is older than this are asked for instead of waited for. `None`: four
    /// thirds of the stores' flush interval, and four minutes as long as that is not known.
    pub poll_after: Option<Duration>,
    /// The task is paused when its checkpoint is older than this, so that it does not hold garbage
    /// collection back for ever. Zero: never.
    pub lag_limit: Duration,
    /// How long the others wait for a coordinator that died.
    pub lease_ttl: Duration,
    /// Who this is: the value of its key in the election, and its name towards the stores.
    pub id: String,
}

/// Default of [`AdvancerConfig::poll_after`] while the stores' flush interval is not known.
pub const POLL_AFTER_DEFAULT: Duration = Duration::from_secs(4 * 60);

impl AdvancerConfig {
    /// The defaults, under that name.
    pub fn new(id: String) -> AdvancerConfig {
        AdvancerConfig {
            backoff: Duration::from_secs(5),
            tick_interval: Duration::from_secs(12),
            poll_after: None,
            lag_limit: Duration::from_secs(48 * 3600),
            lease_ttl: Duration::from_secs(60),
            id,
        }
    }
}
