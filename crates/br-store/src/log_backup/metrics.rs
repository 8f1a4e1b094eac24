use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

/// A number that others read while it changes.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, to: u64) {
        self.0.store(to, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Numbers of a store's log backup, since it started.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Batches of events taken, and records in them.
    pub(crate) batches: Counter,
    pub(crate) records: Counter,
    pub(crate) scanned_records: Counter,
    pub(crate) events_lost: Counter,
    pub(crate) flushes: Counter,
    pub(crate) flush_failures: Counter,
    pub(crate) objects: Counter,
    pub(crate) uploaded_bytes: Counter,
    pub(crate) spilled: Counter,
    /// As they are now.
    pub(crate) regions: Counter,
    pub(crate) waiting_bytes: Counter,
    pub(crate) memory_bytes: Counter,
}

impl Metrics {
    /// Prometheus's text form. The first two have TiKV's names: tests of the official tool wait
    /// until their sum stands still.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, kind: &str, value: u64| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# TYPE {name} {kind}\n{name} {value}");
        };
        line(
            "tikv_log_backup_handle_kv_batch_sum",
            "counter",
            self.records.get(),
        );
        line(
            "tikv_log_backup_handle_kv_batch_count",
            "counter",
            self.batches.get(),
        );
        for (name, counter) in [
            ("scanned_records_total", &self.scanned_records),
            ("events_lost_total", &self.events_lost),
            ("flushes_total", &self.flushes),
            ("flush_failures_total", &self.flush_failures),
            ("objects_total", &self.objects),
            ("uploaded_bytes_total", &self.uploaded_bytes),
            ("spills_total", &self.spilled),
        ] {
            line(
                &format!("holdfast_log_backup_{name}"),
                "counter",
                counter.get(),
            );
        }
        for (name, gauge) in [
            ("observed_regions", &self.regions),
            ("waiting_bytes", &self.waiting_bytes),
            ("memory_bytes", &self.memory_bytes),
        ] {
            line(&format!("holdfast_log_backup_{name}"), "gauge", gauge.get());
        }
        text
    }
}
