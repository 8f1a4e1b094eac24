//! Log backup of two stores over one engine, with a PD and a storage that can be lost.

mod faults;
mod hesitant;
mod holes;
mod model;
mod threads;
mod world;
