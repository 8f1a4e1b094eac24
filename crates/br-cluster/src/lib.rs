//! Clients of PD and of the stores: timestamps, regions, transactions, retries.
