//! One suite that every backend passes, real servers on loopback among them. A backend's tests are
//! in a module of its name, so that the names of the tests are the table of backends and cases.

mod backends;
mod conformance;
mod credentials;
mod faults;
