//! Prints how fast SST files are decoded: `decode_speed FILE…`.
//!
//! Decompression counts; pass files without it to leave it out.
#![allow(clippy::print_stdout, reason = "it is what the program is for")]
#![allow(clippy::disallowed_methods, reason = "measures real time")]

use std::time::{Duration, Instant};

use bytes::Bytes;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const AT_LEAST: Duration = Duration::from_secs(1);
    for path in std::env::args().skip(1) {
        let file = Bytes::from(std::fs::read(&path)?);
        let (mut rounds, mut entries, mut size_bytes) = (0u32, 0u64, 0u64);
        let start = Instant::now();
        while start.elapsed() < AT_LEAST {
            let table = br_sst::Table::open(&file)?;
            let mut iter = table.iter();
            while let Some(entry) = iter.next()? {
                entries += 1;
                size_bytes += (entry.user_key.len() + entry.value.len()) as u64;
            }
            rounds += 1;
        }
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{path}: {} entries, {:.0} MB/s of keys and values, {:.2} million entries/s",
            entries / u64::from(rounds),
            size_bytes as f64 / seconds / 1e6,
            entries as f64 / seconds / 1e6,
        );
    }
    Ok(())
}
