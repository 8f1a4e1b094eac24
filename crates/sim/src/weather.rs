//! How well the network and the external storage of a run work.

use std::time::Duration;

use br_rt::NetworkFaults;
use br_storage::Faults;
use rand::{RngExt as _, rngs::StdRng};

/// What goes wrong by itself.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    pub(crate) name: &'static str,
    pub(crate) network: NetworkFaults,
    pub(crate) storage: Faults,
}

impl Weather {
    /// Nothing fails, everything takes a moment: without latency the clock would not move.
    pub(crate) fn fair() -> Weather {
        Weather {
            name: "fair",
            network: NetworkFaults {
                latency_max: Duration::from_millis(3),
                cuts_per_million: 0,
            },
            storage: Faults {
                latency_max: Duration::from_millis(10),
                ..Faults::default()
            },
        }
    }

    /// Now and then something fails.
    pub(crate) fn windy() -> Weather {
        Weather {
            name: "windy",
            network: NetworkFaults {
                latency_max: Duration::from_millis(30),
                cuts_per_million: 200,
            },
            storage: Faults {
                errors_per_mille: 50,
                lost_answers_per_mille: 20,
                latency_max: Duration::from_millis(100),
                truncated_reads_per_mille: 10,
                ..Faults::default()
            },
        }
    }

    /// Storage fails as often as in FoundationDB's simulation: a quarter of the requests with
    /// errors, three in ten throttled, long delays, one read in a hundred with a flipped bit.
    pub(crate) fn storm() -> Weather {
        Weather {
            name: "storm",
            network: NetworkFaults {
                latency_max: Duration::from_millis(60),
                cuts_per_million: 1000,
            },
            storage: Faults {
                // Both of them: 1 - (1 - 0.25) * (1 - 0.3).
                errors_per_mille: 475,
                lost_answers_per_mille: 50,
                latency_max: Duration::from_millis(500),
                truncated_reads_per_mille: 20,
                corrupted_reads_per_mille: 10,
                ..Faults::default()
            },
        }
    }

    /// Whether an error about damaged bytes may come from the weather.
    pub(crate) fn corrupts(&self) -> bool {
        self.storage.corrupted_reads_per_mille > 0
    }

    pub(crate) fn draw(rng: &mut StdRng) -> Weather {
        match rng.random_range(0..4) {
            0 | 1 => Weather::fair(),
            2 => Weather::windy(),
            _ => Weather::storm(),
        }
    }
}
