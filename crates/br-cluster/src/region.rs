//! Regions: where they are, what their errors mean, and how a request finds its way.

mod cache;
mod fault;
mod route;
mod router;

pub use cache::RegionCache;
pub use fault::{RegionFault, RegionResponse};
pub use route::RegionRoute;
pub use router::{KEY_ERROR_RETRY, REGION_RETRY, Router};
