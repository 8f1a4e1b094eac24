use br_store::engine::SstCompression;
use br_types::Cf;
use rust_rocksdb::{
    BlockBasedOptions, Cache, ChecksumType, ColumnFamilyDescriptor, DBCompressionType, Options,
};

/// Column family of the [`MetaStore`](crate::MetaStore).
pub(crate) const META_FAMILY: &str = "meta";

/// Blocks, indexes and filters kept in memory for reads, over all column families. An embedded
/// cluster shares the machine with the tool and its tests: half of what `br` may use.
const BLOCK_CACHE_BYTES: usize = 128 << 20;
/// Memory of a column family with data before it goes to a file: about as large as the files of
/// the first level, so that compactions have little to do.
const DATA_BUFFER_BYTES: usize = 32 << 20;
/// Locks and meta are short-lived or few.
const SMALL_BUFFER_BYTES: usize = 8 << 20;
/// Of one column family: one that fills, one that is written out, one in reserve.
const BUFFERS_MAX: i32 = 3;
/// All buffers together; beyond it the largest is written out.
const ALL_BUFFERS_BYTES: usize = 128 << 20;
/// Log that a start may have to replay.
const WAL_BYTES_MAX: u64 = 256 << 20;
/// Flushes and compactions at a time: the machine we plan for has two cores.
const BACKGROUND_JOBS: i32 = 2;
/// Open files; each costs an index and a filter in the block cache.
const OPEN_FILES_MAX: i32 = 1024;
/// TiKV's block size for data: scans matter more than point reads.
const BLOCK_BYTES: usize = 32 << 10;
/// About one false hit in a hundred.
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// TiKV's RocksDB reads up to 5, and not 6.
const FORMAT_VERSION: i32 = 5;
/// Log files of RocksDB itself.
const INFO_LOGS_MAX: usize = 4;
const INFO_LOG_BYTES_MAX: usize = 4 << 20;

/// "The library's default" as RocksDB spells it.
const DEFAULT_LEVEL: i32 = 32_767;
/// RocksDB's default for a setting of zlib that nothing here uses.
const WINDOW_BITS: i32 = -14;

/// How the database behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RocksOptions {
    /// Whether every write waits until the disk has it. Without, a power cut may lose the last
    /// writes; the death of the process never does.
    pub syncs_writes: bool,
}

pub(crate) fn database() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    options.set_db_write_buffer_size(ALL_BUFFERS_BYTES);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_keep_log_file_num(INFO_LOGS_MAX);
    options.set_max_log_file_size(INFO_LOG_BYTES_MAX);
    // Writes many small batches from several threads.
    options.set_enable_pipelined_write(true);
    // Spreads the writing of files instead of one burst at their end.
    options.set_bytes_per_sync(1 << 20);
    options
}

/// Every column family.
pub(crate) fn families() -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
    let mut families: Vec<_> = Cf::ALL
        .iter()
        .map(|&cf| {
            let buffer = if cf == Cf::Lock {
                SMALL_BUFFER_BYTES
            } else {
                DATA_BUFFER_BYTES
            };
            ColumnFamilyDescriptor::new(cf.name(), family(&cache, buffer))
        })
        .collect();
    families.push(ColumnFamilyDescriptor::new(
        META_FAMILY,
        family(&cache, SMALL_BUFFER_BYTES),
    ));
    families
}

fn family(cache: &Cache, buffer_bytes: usize) -> Options {
    let mut blocks = block_options();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(buffer_bytes);
    options.set_max_write_buffer_number(BUFFERS_MAX);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_compression_type(DBCompressionType::Lz4);
    options
}

fn block_options() -> BlockBasedOptions {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_size(BLOCK_BYTES);
    blocks.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    blocks.set_format_version(FORMAT_VERSION);
    blocks.set_checksum_type(ChecksumType::CRC32c);
    blocks
}

/// For SST files that leave this engine: nothing in them that TiKV's RocksDB does not read.
pub(crate) fn sst(compression: SstCompression, level: i32) -> Options {
    let mut options = Options::default();
    options.set_block_based_table_factory(&block_options());
    options.set_compression_type(match compression {
        SstCompression::None => DBCompressionType::None,
        SstCompression::Snappy => DBCompressionType::Snappy,
        SstCompression::Lz4 => DBCompressionType::Lz4,
        SstCompression::Zstd => DBCompressionType::Zstd,
    });
    let level = if level == 0 { DEFAULT_LEVEL } else { level };
    options.set_compression_options(WINDOW_BITS, level, 0, 0);
    options
}
