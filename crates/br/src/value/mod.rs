//! How values of flags are read and figures are shown: as the official tool does it, so that
//! scripts for it go on working.

mod duration;
mod size;
mod switch;
mod timestamp;

pub(crate) use duration::{go_duration, parse_duration};
pub(crate) use size::human_size;
pub(crate) use switch::Switch;
pub(crate) use timestamp::parse_timestamp;
