//! The seams: clock, randomness, sleep, spawn, connections, retry, rate limits, progress.
//!
//! Nothing outside this crate names a clock, a random number generator, a timer or a spawn of its
//! own (clippy's `disallowed-methods` enforces it). All of it comes from an [`Rt`], which is either
//! the real thing or, for simulation, virtual time and seeded randomness.

mod kill_point;
mod net;
mod process;
mod progress;
mod rate_limit;
mod retry;
mod rt;

pub use kill_point::{arm_kill_point, kill_point};
pub use net::{Connection, Listener, Network, NetworkFaults};
pub use process::{ProcessName, play_process};
pub use progress::{Phase, PhaseId, Progress, Silent, Unit};
pub use rate_limit::RateLimit;
pub use retry::{Backoff, RetryPolicy};
pub use rt::{Elapsed, Monotonic, Rt, Task, UnixMillis};
pub use tokio_util::sync::CancellationToken;
